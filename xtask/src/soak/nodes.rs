use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold_conformance::history::Journal;
use leasehold_test_servers::{Mongo, Node};
use tokio::time::sleep;

use crate::SoakOptions;
use crate::run::Trouble;

/// Kills whoever is primary, again and again, and starts it some seconds later on the same data, until all is calm.
/// Tells how many were killed.
pub(super) async fn kill_primaries(
    set: &Mongo,
    options: &SoakOptions,
    journal: &Journal,
    seed: u64,
    calm: &AtomicBool,
) -> Result<u32, Trouble> {
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x2);
    let mut killed = 0;
    loop {
        for _ in 0..options.primary_every * 10 {
            sleep(Duration::from_millis(100)).await;
            if calm.load(Ordering::Relaxed) {
                return Ok(killed);
            }
        }
        let primary = set.primary().await?;
        journal.fault(format!("the primary is killed: port {}", primary.port()))?;
        primary.kill()?;
        killed += 1;
        sleep(Duration::from_millis(dice.u64(2_000..6_000))).await;
        primary.start()?;
        journal.note(format!("the node of port {} is started again", primary.port()))?;
    }
}

/// Counts elections by the set's term, which rises with each.
pub(super) struct Elections(i64);

impl Elections {
    pub(super) async fn begin(set: &Mongo) -> Result<Self, Trouble> {
        Ok(Self(term(set.primary().await?).await?))
    }

    pub(super) async fn end(self, set: &Mongo) -> Result<i64, Trouble> {
        Ok(term(set.primary().await?).await? - self.0)
    }
}

async fn term(node: &Node) -> Result<i64, Trouble> {
    let status = node.run([("replSetGetStatus".to_owned(), 1.into())].into_iter().collect()).await?;
    Ok(status.get_i64("term")?)
}
