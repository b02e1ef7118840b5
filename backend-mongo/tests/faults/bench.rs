//! The verbs in which the tests are written.

use leasehold_core::backend::{
    Answer, Claimed, Counts, Enqueue, Find, QueueCounts, Settle, Settlement, Verdict,
};
use leasehold_core::{Backend, Deadline, ErrorKind, JobId, JobRecord, LeasedJob, NewJob, QueueName, Result};
use leasehold_mongo::mongodb::{Client, Database};
use leasehold_mongo::{Config, Mongo};
pub(crate) use leasehold_test_servers::verbs::{
    LEASE, PATIENCE, SUCCEED, again, asking, fresh, job, jobs, until,
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

pub(crate) async fn add(store: &dyn Backend, jobs: Vec<NewJob>) -> Vec<JobId> {
    let answers = store.enqueue(soon(), Enqueue { jobs }).await.expect("taken in");
    answers.into_iter().map(|answer| answer.job).collect()
}

pub(crate) async fn claim(store: &dyn Backend, limit: usize) -> Claimed {
    store.claim(soon(), asking(limit)).await.expect("a claim")
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

pub(crate) async fn settle(store: &dyn Backend, lease: &LeasedJob, verdict: &Verdict) -> Answer {
    let lease = std::slice::from_ref(lease);
    store.settle(soon(), settling(lease, verdict)).await.expect("an answer")[0]
}

pub(crate) async fn find(store: &dyn Backend, id: JobId) -> JobRecord {
    let found = store.find(soon(), Find { ids: vec![id] }).await.expect("an answer");
    found.into_iter().next().flatten().expect("the job")
}

pub(crate) async fn counts(store: &dyn Backend) -> QueueCounts {
    let counts = store.counts(soon(), Counts::default()).await.expect("counts");
    counts.into_iter().next().unwrap_or_else(|| QueueCounts::empty(QueueName::default()))
}

/// What a call must not be answered by while its store is out of reach: a failure that is none.
pub(crate) fn must_be_in_doubt<T: std::fmt::Debug>(what: &str, outcome: Result<T>) {
    let error = outcome.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Unknown, "{what}: {error:?}");
}
