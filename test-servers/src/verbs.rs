//! The verbs that the tests of all stores on servers share: what breaks, and what holds all the same.

use std::time::Duration;

use leasehold_core::backend::{Claim, Verdict};
use leasehold_core::{JobId, Kind, NewJob, Payload, QueueName, Result, WorkerId};
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
