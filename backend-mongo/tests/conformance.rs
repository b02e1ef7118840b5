//! The law, judged on a replica set of one node, on one of three, and on a server on its own: one server of each kind
//! for all cases, one prefix of collections per place, one handle with a pool of its own per opening.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Harness, Place, Step};
use leasehold_core::{Backend, Deadline};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::{Missing, Mongo as Server};

/// Where another process of this program finds the server.
const SERVER: &str = "LEASEHOLD_CONFORMANCE_SERVER";

/// The commands that write, and what is between the steps of what takes several.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("enqueue::before_send", Effect::None, &[Step::Enqueue, Step::EnqueueMany, Step::Tick]),
    CutPoint::new("enqueue::acted", Effect::All, &[Step::Enqueue, Step::EnqueueMany, Step::Tick]),
    CutPoint::new("claim::looked", Effect::None, &[Step::Claim]),
    CutPoint::new("claim::noted", Effect::None, &[Step::Claim]),
    CutPoint::new("write::before_send", Effect::None, Step::ALL),
    CutPoint::new("write::acted", Effect::All, UPDATES),
    CutPoint::new("write::acted", Effect::None, REGISTERING),
    CutPoint::new("write::acted", Effect::Some, &[Step::AppendLogs]),
    CutPoint::new("append_logs::numbered", Effect::None, &[Step::AppendLogs]),
    CutPoint::new("append_logs::moved", Effect::Some, &[Step::AppendLogs]),
];

/// The steps that are one command of updates.
const UPDATES: &[Step] = &[Step::Claim, Step::Renew, Step::Succeed, Step::Retry, Step::Recover];
/// The steps whose first command makes a queue known.
const REGISTERING: &[Step] = &[Step::Enqueue, Step::EnqueueMany, Step::Tick];

/// A kind of server, started by the first case that needs it.
struct On {
    start: fn() -> Result<Server, Missing>,
    server: OnceLock<Result<Server, String>>,
}

impl On {
    fn new(start: fn() -> Result<Server, Missing>) -> Self {
        Self { start, server: OnceLock::new() }
    }

    /// The URL of the server, which another process may have started.
    fn url(&self) -> Result<String, CannotRun> {
        if let Ok(url) = std::env::var(SERVER) {
            return Ok(url);
        }
        let server = self.server.get_or_init(|| (self.start)().map_err(|missing| missing.to_string()));
        server.as_ref().map(|server| server.url().to_owned()).map_err(CannotRun::missing)
    }
}

#[async_trait]
impl Harness for On {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let config = Config::new(self.url()?).prefix(format!("{}_", place.name));
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Mongo::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(Arc::new(store))
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(SERVER.into(), self.url().ok()?)])
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main_on([
        ("one_node", On::new(|| Server::replica_set(1))),
        ("three_nodes", On::new(|| Server::replica_set(3))),
        ("standalone", On::new(Server::standalone)),
    ])
}
