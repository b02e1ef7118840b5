//! What is SQLite's alone; what every backend promises is in `leasehold-conformance`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_files;
mod damaged;
mod mounts;
mod plans;
mod sharing;

use std::path::Path;
use std::time::Duration;

use leasehold_core::backend::{Backend, Claim, Claimed, Counts, Enqueue, Settle, Settlement, Verdict};
use leasehold_core::{Deadline, LeasedJob, NewJob, QueueName, Result, WorkerId};
use leasehold_sqlite::Sqlite;

/// A store in this folder, ready for use.
async fn store(folder: &Path) -> Sqlite {
    let store = Sqlite::open(folder.join("jobs.db")).await.unwrap();
    store.setup(deadline()).await.unwrap();
    store
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn jobs(count: usize) -> Vec<NewJob> {
    (0..count).map(|n| NewJob::dynamic("k", &n).unwrap()).collect()
}

async fn enqueue(store: &Sqlite, jobs: Vec<NewJob>) -> Result<usize> {
    let answers = store.enqueue(deadline(), Enqueue { jobs }).await?;
    Ok(answers.iter().filter(|answer| answer.is_created()).count())
}

async fn claim(store: &Sqlite, limit: usize) -> Claimed {
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], limit, Duration::from_secs(30));
    store.claim(deadline(), claim).await.unwrap()
}

async fn succeed(store: &Sqlite, leases: &[LeasedJob]) {
    let settlements = leases.iter().map(|leased| Settlement {
        job: leased.job.id,
        token: leased.token,
        verdict: Verdict::Succeed { result: None },
        failure: None,
    });
    store.settle(deadline(), Settle { settlements: settlements.collect() }).await.unwrap();
}

/// How many jobs there are, and that the counts add up.
async fn total(store: &Sqlite) -> u64 {
    let counts = store.counts(deadline(), Counts::default()).await.unwrap();
    counts.iter().for_each(|queue| assert_eq!(queue.total() + queue.deleted, queue.enqueued, "{queue:?}"));
    counts.iter().map(leasehold_core::backend::QueueCounts::total).sum()
}
