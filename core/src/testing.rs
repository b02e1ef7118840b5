//! Help for tests of programs that use queues: a manual clock, what was enqueued, and handlers run inline.
//!
//! On a store in memory, under `tokio::time::pause`, a retry in an hour runs in a millisecond.

use std::time::Duration;

use futures::TryStreamExt;

use crate::backend::{Filter, Order};
use crate::client::{Store, Wake};
use crate::error::Result;
use crate::job::{JobRecord, State};
use crate::name::Kind;
use crate::worker::{Summary, Worker};

pub use crate::layer::{Chaos, Faults};
pub use crate::time::ManualClock;

/// All jobs of `kind` that are in the store, in the order they were taken in.
///
/// # Errors
/// Those named at [`Store`]; [`InvalidInput`](crate::ErrorKind::InvalidInput) if `kind` is no valid name.
pub async fn enqueued(store: &Store, kind: &str) -> Result<Vec<JobRecord>> {
    let filter = Filter { kinds: Some(vec![Kind::new(kind)?]), ..Filter::default() };
    store.list_all(filter, Order::OldestFirst).try_collect().await
}

/// Asserts that exactly one job of a kind is in the store, and returns its record; with `args`, exactly one
/// with these arguments; with `count`, that there are so many.
///
/// ```
/// # #[derive(serde::Serialize)] struct SendMail { to: String }
/// # async fn example(store: leasehold_core::Store) {
/// use leasehold_core::assert_enqueued;
///
/// let job = assert_enqueued!(store, "send_mail");
/// assert_enqueued!(store, "send_mail", args = SendMail { to: "ann@example.org".into() });
/// assert_enqueued!(store, "send_mail", count = 3);
/// # }
/// ```
#[macro_export]
macro_rules! assert_enqueued {
    ($store:expr, $kind:expr) => {{
        let mut jobs = $crate::testing::enqueued(&$store, $kind).await.expect("the store answers");
        assert_eq!(jobs.len(), 1, "jobs of the kind {:?}", $kind);
        jobs.remove(0)
    }};
    ($store:expr, $kind:expr, args = $args:expr) => {{
        let mut jobs = $crate::testing::enqueued(&$store, $kind).await.expect("the store answers");
        let wanted = $crate::Payload::json(&$args).expect("the arguments can be written as JSON");
        let all = jobs.len();
        jobs.retain(|job| job.payload == wanted);
        assert_eq!(jobs.len(), 1, "jobs of the kind {:?} with these arguments, of {all} of the kind", $kind);
        jobs.remove(0)
    }};
    ($store:expr, $kind:expr, count = $count:expr) => {{
        let jobs = $crate::testing::enqueued(&$store, $kind).await.expect("the store answers");
        assert_eq!(jobs.len(), $count, "jobs of the kind {:?}", $kind);
    }};
}

/// Runs `worker` until every job in the store has ended, however far in the future the next attempt is.
///
/// # Errors
/// Those named at [`Store`].
pub async fn run_all(store: &Store, worker: Worker) -> Result<Summary> {
    let mut wake = Wake::new(store.backend().clone(), None);
    let running = worker.start();
    loop {
        wake.listen().await;
        let counts = store.counts().await?;
        let living = |state: State| counts.iter().map(|queue| queue.of(state)).sum::<u64>();
        if living(State::Scheduled) + living(State::Queued) + living(State::Running) == 0 {
            return running.stop().await;
        }
        wake.wait(Duration::from_secs(1), |_| true).await;
    }
}
