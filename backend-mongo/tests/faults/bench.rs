//! The verbs in which the tests are written.

use leasehold_core::{Backend, Deadline, ErrorKind, Result};
use leasehold_mongo::mongodb::{Client, Database};
use leasehold_mongo::{Config, Mongo};
pub(crate) use leasehold_test_servers::verbs::{
    LEASE, PATIENCE, SUCCEED, add, again, asking, claim, counts, find, fresh, job, jobs, settle, settling,
    until,
};

pub(crate) fn soon() -> Deadline {
    Deadline::default()
}

/// A store on a server, ready for use.
pub(crate) async fn set_up(config: Config) -> Mongo {
    let store = Mongo::with(config).await.expect("a store");
    store.setup(Deadline::after(PATIENCE)).await.expect("a store that is set up");
    store
}

/// The database of a store as a client sees it that is not ours.
pub(crate) fn database(client: &Client, config: &Config) -> Database {
    client.database(config.database.as_deref().expect("a database of its own"))
}

/// What a call must not be answered by while its store is out of reach: a failure that is none.
pub(crate) fn must_be_in_doubt<T: std::fmt::Debug>(what: &str, outcome: Result<T>) {
    let error = outcome.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Unknown, "{what}: {error:?}");
}
