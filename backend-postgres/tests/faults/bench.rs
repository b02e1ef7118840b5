//! The verbs in which the tests are written.

use std::sync::LazyLock;

use leasehold_core::{Backend, Deadline, JobId, LeasedJob};
use leasehold_postgres::{Config, Postgres, sqlx};
use leasehold_test_servers::Postgres as Server;
pub(crate) use leasehold_test_servers::verbs::{
    LEASE, PATIENCE, SUCCEED, add, again, asking, claim, counts, find, fresh, job, jobs,
    settle_all as settle, settling, until,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The server of those tests that break none.
pub(crate) static SERVER: LazyLock<Server> = LazyLock::new(|| Server::own().expect("a server"));

pub(crate) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// A store on a server, ready for use.
pub(crate) async fn set_up(config: Config) -> Postgres {
    let store = Postgres::with(config).await.expect("a store");
    store.setup(soon()).await.expect("a store that is set up");
    store
}

/// A store of its own on the server that all share, its schema, and a connection of somebody else's.
pub(crate) async fn store() -> (Postgres, String, PgConnection) {
    let schema = fresh();
    let store = set_up(Config::new(SERVER.url()).schema(&schema)).await;
    (store, schema, connection(SERVER.url()).await)
}

/// A connection of somebody else's.
pub(crate) async fn connection(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("a connection")
}

/// What somebody else does.
pub(crate) async fn run(conn: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(conn).await.expect("a change by hand");
}

/// One number that the server tells.
pub(crate) async fn number(conn: &mut PgConnection, sql: impl Into<String>) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.into())).fetch_one(conn).await.expect("a number")
}

pub(crate) fn ids(leases: &[LeasedJob]) -> Vec<JobId> {
    leases.iter().map(|lease| lease.job.id).collect()
}
