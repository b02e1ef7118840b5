//! The law, judged on a replica set of one node, on one of three, and on a server on its own: one server of each kind
//! for all cases, one prefix of collections per place, one handle with a pool of its own per opening.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::{Backend, Deadline};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::{Missing, Mongo as Server};

/// A kind of server, started by the first case that needs it.
struct On {
    start: fn() -> Result<Server, Missing>,
    server: OnceLock<Result<Server, String>>,
}

impl On {
    fn new(start: fn() -> Result<Server, Missing>) -> Self {
        Self { start, server: OnceLock::new() }
    }
}

#[async_trait]
impl Harness for On {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let server = self.server.get_or_init(|| (self.start)().map_err(|missing| missing.to_string()));
        let server = server.as_ref().map_err(CannotRun::missing)?;
        let config = Config::new(server.url()).prefix(format!("{}_", place.name));
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Mongo::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(Arc::new(store))
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main_on([
        ("one_node", On::new(|| Server::replica_set(1))),
        ("three_nodes", On::new(|| Server::replica_set(3))),
        ("standalone", On::new(Server::standalone)),
    ])
}
