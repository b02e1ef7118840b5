//! The law, judged on a replica set of one node: one server for all cases, one prefix of collections per place, one
//! handle with a pool of its own per opening.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::{Backend, Deadline};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;

/// Started by the first case that needs it.
static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();

struct OnOneNode;

#[async_trait]
impl Harness for OnOneNode {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let server = SERVER.get_or_init(|| Server::replica_set(1).map_err(|missing| missing.to_string()));
        let server = server.as_ref().map_err(CannotRun::missing)?;
        let config = Config::new(server.url()).prefix(format!("{}_", place.name)).clock(place.clock.clone());
        let store = Mongo::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(Arc::new(store))
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(OnOneNode)
}
