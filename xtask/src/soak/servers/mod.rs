//! The servers that are broken, one file for each store.

mod mongo;
mod postgres;
mod redis;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold::backend::Durability;
use leasehold_conformance::history::Journal;
use leasehold_test_servers::Missing;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::SoakOptions;
use crate::run::Trouble;

/// The servers that keep a store.
pub(super) trait Servers: Send + Sync + Sized + 'static {
    /// What is killed.
    const VICTIM: &'static str = "the server";
    /// How many milliseconds it is away.
    const AWAY: Range<u64> = 0..4_000;
    /// What an acknowledged write outlives on them.
    const DURABILITY: Durability;

    fn begin() -> Result<Self, Missing>;

    /// The URL of a store on them.
    fn store(&self) -> String;

    /// Kills what the store cannot do without.
    async fn strike(&self) -> io::Result<()>;

    /// Starts again what was killed, on the same port and data.
    fn mend(&self) -> io::Result<()>;

    /// What came of it in words, if there is anything to say.
    async fn told(&self) -> Result<Option<String>, Trouble> {
        Ok(None)
    }
}

/// Strikes and mends, again and again, until all is calm. Tells how often.
pub(super) async fn break_often<S: Servers>(
    servers: &Arc<S>,
    options: &SoakOptions,
    journal: &Journal,
    seed: u64,
    calm: &AtomicBool,
) -> Result<u32, Trouble> {
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x2);
    let mut killed = 0;
    loop {
        for _ in 0..options.server_every * 10 {
            sleep(Duration::from_millis(100)).await;
            if calm.load(Ordering::Relaxed) {
                return Ok(killed);
            }
        }
        journal.fault(format!("{} is killed", S::VICTIM))?;
        servers.strike().await?;
        killed += 1;
        sleep(Duration::from_millis(dice.u64(S::AWAY))).await;
        let mended = Arc::clone(servers);
        spawn_blocking(move || mended.mend()).await??;
        journal.note("it is started again")?;
    }
}
