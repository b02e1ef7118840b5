//! The verbs that the tests of all stores on servers share: what breaks, and what holds all the same.

use std::time::Duration;

use leasehold_core::backend::{
    Answer, Claim, Claimed, Counts, Enqueue, Find, QueueCounts, Settle, Settlement, Verdict,
};
use leasehold_core::{
    Backend, Deadline, JobId, JobRecord, Kind, LeasedJob, NewJob, Payload, QueueName, Result, WorkerId,
};
use tokio::time::{Instant, sleep};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long leases are.
pub const LEASE: Duration = Duration::from_secs(30);
/// A success without a result.
pub const SUCCEED: Verdict = Verdict::Succeed { result: None };

/// A name that nobody else uses, for a database or a schema.
pub fn fresh() -> String {
    format!("faults_{}", JobId::generate().as_uuid().simple())
}

/// A plain job.
///
/// # Panics
/// Never: its kind is a name.
pub fn job() -> NewJob {
    NewJob::new(Kind::new("work").expect("a name"), Payload::from(b"{}".to_vec()))
}

/// So many plain jobs.
pub fn jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|_| job()).collect()
}

/// A claim by somebody new.
pub fn asking(limit: usize) -> Claim {
    Claim::new(WorkerId::generate(), [QueueName::default()], limit, LEASE)
}

/// Takes jobs in.
///
/// # Panics
/// If the store does not, like all that follow.
pub async fn add(store: &dyn Backend, jobs: Vec<NewJob>) -> Vec<JobId> {
    let answers = store.enqueue(in_time(), Enqueue { jobs }).await.expect("taken in");
    answers.into_iter().map(|answer| answer.job).collect()
}

/// Claims up to so many jobs.
pub async fn claim(store: &dyn Backend, limit: usize) -> Claimed {
    store.claim(in_time(), asking(limit)).await.expect("a claim")
}

/// Asks for all these attempts to end alike.
pub fn settling(leases: &[LeasedJob], verdict: &Verdict) -> Settle {
    let settlement = |lease: &LeasedJob| Settlement {
        job: lease.job.id,
        token: lease.token,
        verdict: verdict.clone(),
        failure: None,
    };
    Settle { settlements: leases.iter().map(settlement).collect() }
}

/// Ends all these attempts alike.
pub async fn settle_all(store: &dyn Backend, leases: &[LeasedJob], verdict: &Verdict) -> Vec<Answer> {
    store.settle(in_time(), settling(leases, verdict)).await.expect("answers")
}

/// Ends one attempt.
pub async fn settle(store: &dyn Backend, lease: &LeasedJob, verdict: &Verdict) -> Answer {
    settle_all(store, std::slice::from_ref(lease), verdict).await[0]
}

/// A job that is there.
pub async fn find(store: &dyn Backend, id: JobId) -> JobRecord {
    let found = store.find(in_time(), Find { ids: vec![id] }).await.expect("an answer");
    found.into_iter().next().flatten().expect("the job")
}

/// The counts of the one queue that is used.
pub async fn counts(store: &dyn Backend) -> QueueCounts {
    let counts = again(async || store.counts(in_time(), Counts::default()).await).await;
    counts.into_iter().next().unwrap_or_else(|| QueueCounts::empty(QueueName::default()))
}

fn in_time() -> Deadline {
    Deadline::after(PATIENCE)
}

/// Makes a call again and again, for as long as waiting can help.
///
/// # Panics
/// At an error that waiting does not help against, and when [`PATIENCE`] is at its end.
pub async fn again<T>(mut call: impl AsyncFnMut() -> Result<T>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) if error.is_transient() && begun.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("for {:?}: {error:?}", begun.elapsed()),
        }
    }
}

/// Waits until something holds.
///
/// # Panics
/// When [`PATIENCE`] is at its end.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}
