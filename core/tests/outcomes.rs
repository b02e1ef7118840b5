//! What is recorded of how an attempt ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold_core::backend::{Level, LogSource};
use leasehold_core::policy::{BoxError, Control};
use leasehold_core::testing::run_all;
use leasehold_core::worker::State as Shared;
use leasehold_core::{Attempt, ErrorKind, JobArgs, Payload, Progress, Reason, State};
use tokio::time::sleep;

use crate::probe::{Fate, Probe};
use crate::worker::{builder, enqueue, only};
use crate::{Add, store};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_too_large_fails_the_job() {
    let store = store();
    enqueue(&store, 1, 0).await;
    async fn h() -> Result<Payload, BoxError> {
        Ok(vec![0; (1 << 20) + 1].into())
    }
    let worker = builder(&store).handle(Add::KIND, h).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.reason, job.attempt), (State::Failed, Some(Reason::Error), 1), "{job:?}");
    assert!(job.history[0].message.contains("1048576"), "{job:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snooze_for_ever_is_as_long_as_can_be() {
    let store = store();
    enqueue(&store, 1, 0).await;
    async fn h() -> Result<(), BoxError> {
        Err(Control::Snooze(Duration::MAX).into())
    }
    let worker = builder(&store).handle(Add::KIND, h).build().unwrap().start();
    sleep(s(10)).await;
    let job = only(&store).await;
    assert_eq!((job.state, job.reason), (State::Scheduled, Some(Reason::Snoozed)), "{job:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_the_store_was_away_is_recorded_when_it_is_back() {
    let probe = Probe::quiet();
    let store = probe.store();
    let job = enqueue(&store, 1, 0).await;
    let runs = Arc::new(AtomicUsize::new(0));
    async fn h(runs: Shared<Arc<AtomicUsize>>) {
        runs.fetch_add(1, Ordering::SeqCst);
        sleep(s(5)).await;
    }
    let worker = builder(&store).recovery(s(3600)).lease(s(10)).state(runs.clone()).handle(Add::KIND, h);
    let worker = worker.build().unwrap().start();
    sleep(s(1)).await;
    probe.set(|_| Fate::Refuse(ErrorKind::Unavailable));
    sleep(s(60)).await;
    probe.set(|_| Fate::Pass);
    sleep(s(30)).await;
    let job = probe.undisturbed().find(job).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Succeeded, 1), "{job:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_lines_and_progress_of_an_attempt_are_kept() {
    let store = store();
    let job = enqueue(&store, 1, 0).await;
    async fn h(attempt: Attempt) {
        for n in 0..3 {
            attempt.log(Level::Info, format!("{n}"));
            attempt.progress(Progress { done: n + 1, ..Progress::default() });
            sleep(ms(10)).await;
        }
    }
    let worker = builder(&store).handle(Add::KIND, h).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let lines = store.logs(LogSource::Job(job), 0, 10).await.unwrap().lines.len();
    assert_eq!((lines, only(&store).await.progress.map(|p| p.done)), (3, Some(3)));
}
