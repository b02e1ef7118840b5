//! The verbs in which the tests are written.

use std::sync::LazyLock;

use leasehold_core::backend::{
    Answer, Claimed, Counts, Enqueue, Find, QueueCounts, Settle, Settlement, Verdict,
};
use leasehold_core::{Backend, Deadline, JobId, JobRecord, LeasedJob, NewJob, QueueName};
use leasehold_postgres::{Config, Postgres, sqlx};
use leasehold_test_servers::Postgres as Server;
pub(crate) use leasehold_test_servers::verbs::{
    LEASE, PATIENCE, SUCCEED, again, asking, fresh, job, jobs, until,
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

pub(crate) async fn add(store: &dyn Backend, jobs: Vec<NewJob>) -> Vec<JobId> {
    let answers = store.enqueue(soon(), Enqueue { jobs }).await.expect("taken in");
    answers.into_iter().map(|answer| answer.job).collect()
}

pub(crate) async fn claim(store: &dyn Backend, limit: usize) -> Claimed {
    store.claim(soon(), asking(limit)).await.expect("a claim")
}

pub(crate) fn ids(leases: &[LeasedJob]) -> Vec<JobId> {
    leases.iter().map(|lease| lease.job.id).collect()
}

pub(crate) fn settling(leases: &[LeasedJob], verdict: &Verdict) -> Settle {
    let settlement = |lease: &LeasedJob| Settlement {
        job: lease.job.id,
        token: lease.token,
        verdict: verdict.clone(),
        failure: None,
    };
    Settle { settlements: leases.iter().map(settlement).collect() }
}

pub(crate) async fn settle(store: &dyn Backend, leases: &[LeasedJob], verdict: &Verdict) -> Vec<Answer> {
    store.settle(soon(), settling(leases, verdict)).await.expect("answers")
}

pub(crate) async fn find(store: &dyn Backend, id: JobId) -> JobRecord {
    let found = store.find(soon(), Find { ids: vec![id] }).await.expect("an answer");
    found.into_iter().next().flatten().expect("the job")
}

pub(crate) async fn counts(store: &dyn Backend) -> QueueCounts {
    let counts = store.counts(soon(), Counts::default()).await.expect("counts");
    counts.into_iter().next().unwrap_or_else(|| QueueCounts::empty(QueueName::default()))
}
