//! Long jobs that go on where they were.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::policy::BoxError;
use leasehold_core::testing::run_all;
use leasehold_core::worker::State as Shared;
use leasehold_core::{Attempt, ErrorKind, JobArgs, Progress, State};
use tokio::time::{Instant, sleep};

use crate::worker::{builder, enqueue, only};
use crate::{Add, store};

type Steps = Arc<Mutex<Vec<(u32, u64)>>>;

/// Ten steps of a second each, the third of which fails at first.
async fn steps(attempt: Attempt, done: Shared<Steps>) -> Result<(), BoxError> {
    for step in attempt.cursor::<u64>()?.unwrap_or(0)..10 {
        sleep(Duration::from_secs(1)).await;
        attempt.progress(Progress { done: step, ..Progress::default() });
        if (attempt.number(), step) == (1, 3) {
            return Err("the third".into());
        }
        done.lock().unwrap().push((attempt.number(), step));
        attempt.save_cursor(&(step + 1)).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_gone_on_with() {
    let store = store();
    enqueue(&store, 1, 0).await;
    let done = Steps::default();
    let worker = builder(&store).state(done.clone()).handle(Add::KIND, steps).build().unwrap();
    assert_eq!(run_all(&store, worker).await.unwrap().succeeded, 1);
    let first = (0..3).map(|step| (1, step));
    assert_eq!(*done.lock().unwrap(), first.chain((3..10).map(|step| (2, step))).collect::<Vec<_>>());
    let progress = only(&store).await.progress.unwrap();
    assert_eq!((progress.done, progress.cursor.as_deref()), (9, Some("10")), "progress keeps the cursor");
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_worker_that_is_gone_is_gone_on_with() {
    let store = store();
    enqueue(&store, 1, 0).await;
    let done = Steps::default();
    let worker =
        || builder(&store).lease(Duration::from_secs(5)).state(done.clone()).handle(Add::KIND, steps);
    let first = worker().build().unwrap().start();
    sleep(Duration::from_millis(2_500)).await;
    drop(first);
    run_all(&store, worker().build().unwrap()).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.crashes), (State::Succeeded, 1));
    assert_eq!(
        done.lock().unwrap().iter().map(|(_, step)| *step).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn a_cursor_is_written_at_once_or_refused() {
    async fn saves(attempt: Attempt, waited: Shared<Arc<Mutex<Duration>>>) {
        let begun = Instant::now();
        attempt.save_cursor(&[1, 2]).await.unwrap();
        *waited.lock().unwrap() = begun.elapsed();
        assert_eq!(attempt.cursor::<Vec<u8>>().unwrap(), Some(vec![1, 2]));
        assert_eq!(attempt.cursor::<String>().unwrap_err().kind(), ErrorKind::InvalidInput);
        let refused = attempt.save_cursor(&"x".repeat(1 << 20)).await.unwrap_err();
        assert!(refused.to_string().contains("16384"), "{refused}");
        // What the store refuses for something else does not leave it waiting.
        attempt.progress(Progress { message: "x".repeat(1 << 20), ..Progress::default() });
        assert_eq!(attempt.save_cursor(&3).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    let store = store();
    enqueue(&store, 1, 0).await;
    let waited = Arc::new(Mutex::new(Duration::MAX));
    let worker = builder(&store).state(waited.clone());
    let summary = run_all(&store, worker.handle(Add::KIND, saves).build().unwrap()).await.unwrap();
    assert_eq!((summary.succeeded, only(&store).await.last_failure()), (1, None));
    assert!(*waited.lock().unwrap() < Duration::from_millis(50), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_refused_spoils_no_later_cursor() {
    async fn saves(attempt: Attempt) -> Result<(), BoxError> {
        attempt.progress(Progress { message: "x".repeat(1 << 20), ..Progress::default() });
        sleep(Duration::from_secs(1)).await;
        attempt.save_cursor(&3).await?;
        Ok(())
    }
    let store = store();
    enqueue(&store, 1, 0).await;
    let worker = builder(&store).handle(Add::KIND, saves).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.attempt, job.progress.unwrap().cursor.as_deref()), (1, Some("3")));
}
