//! Panics, wherever they come from.

use std::time::Duration;

use leasehold_core::backend::Level;
use leasehold_core::layer::Operation;
use leasehold_core::policy::BoxError;
use leasehold_core::testing::run_all;
use leasehold_core::{Attempt, ErrorKind, JobArgs, Progress, Reason, State};
use tokio::time::sleep;

use crate::probe::{Fate, Probe};
use crate::worker::{builder, enqueue, only};
use crate::{Add, store};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

/// Panics when it is shown.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words for it");
    }
}

impl std::error::Error for Unspeakable {}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_layer_that_cannot_be_shown_fails_the_attempt() {
    let store = store();
    enqueue(&store, 1, 0).await;
    let layer = tower::util::MapResultLayer::new(|_: Result<_, BoxError>| {
        Err::<leasehold_core::policy::Outcome, BoxError>(Unspeakable.into())
    });
    let job = leasehold_core::NewJob::of(&Add { a: 1, b: 1 }).unwrap().max_attempts(1);
    store.queue("once").unwrap().enqueue(job).await.unwrap();
    let worker =
        leasehold_core::Worker::builder(&store).queue("once").handle(Add::KIND, || async {}).layer(layer);
    let summary = worker.until_idle().build().unwrap().run().await;
    assert_eq!(summary.failed, 1);
}

#[tokio::test]
async fn a_panic_on_a_blocking_thread_fails_the_attempt() {
    let store = store();
    let job = leasehold_core::NewJob::of(&Add { a: 1, b: 1 }).unwrap().max_attempts(1);
    store.queue("sums").unwrap().enqueue(job).await.unwrap();
    async fn blocking() -> Result<(), BoxError> {
        Ok(tokio::task::spawn_blocking(|| panic!("out of beans")).await?)
    }
    let worker = builder(&store).handle(Add::KIND, blocking).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.history[0].reason), (State::Failed, Reason::Error));
    assert!(job.history[0].message.contains("out of beans"), "{job:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn panics_at_once_are_told_apart() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue
        .enqueue_all((0..200).map(|a| leasehold_core::NewJob::of(&Add { a, b: 0 }).unwrap().max_attempts(1)))
        .await
        .unwrap();
    async fn by_number(leasehold_core::worker::Args(sum): leasehold_core::worker::Args<Add>) {
        tokio::task::yield_now().await;
        match sum.a % 3 {
            0 => panic!("panic {}.", sum.a),
            1 => std::panic::panic_any(sum.a),
            _ => {}
        }
    }
    let worker = builder(&store).handle(Add::KIND, by_number).until_idle().build().unwrap();
    tokio::spawn(worker.run()).await.unwrap();
    for job in leasehold_core::testing::enqueued(&store, Add::KIND).await.unwrap() {
        let a = job.payload.parse::<Add>().unwrap().a;
        let message = job.last_failure().map(|failure| failure.message.clone()).unwrap_or_default();
        match a % 3 {
            0 => assert!(message.starts_with(&format!("panic {a}., at core/tests/panics.rs:")), "{message}"),
            1 => assert!(message.starts_with("panicked, at core/tests/panics.rs:"), "{message}"),
            _ => assert_eq!(job.state, State::Succeeded),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_handler_that_is_dropped_fails_the_attempt() {
    let store = store();
    enqueue(&store, 1, 0).await;
    async fn h(attempt: Attempt) {
        if attempt.number() == 1 {
            let _bomb = Bomb;
            sleep(s(100)).await;
        }
    }
    let worker = builder(&store).timeout(s(10)).handle(Add::KIND, h).build().unwrap().start();
    sleep(s(200)).await;
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt), (State::Succeeded, 2), "{job:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_with_what_panics_itself_fails_the_attempt() {
    let store = store();
    enqueue(&store, 1, 0).await;
    async fn h(attempt: Attempt) {
        if attempt.number() == 1 {
            std::panic::panic_any(Bomb);
        }
    }
    let worker = builder(&store).handle(Add::KIND, h).build().unwrap().start();
    sleep(s(200)).await;
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt), (State::Succeeded, 2), "{job:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_ends_the_worker_and_is_told() {
    for broken in
        [Operation::Renew, Operation::Settle, Operation::Claim, Operation::CheckIn, Operation::AppendLogs]
    {
        let probe = Probe::new(move |op| if op == broken { Fate::Panic } else { Fate::Pass });
        let store = probe.store();
        enqueue(&store, 1, 0).await;
        async fn h(attempt: Attempt) {
            attempt.log(Level::Info, "x");
            attempt.progress(Progress::default());
            sleep(s(15)).await;
        }
        let worker = builder(&store).handle(Add::KIND, h).build().unwrap().start();
        let ended = tokio::time::timeout(s(60), worker.join()).await.expect("it ends");
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Internal, "{broken}");
    }
}
