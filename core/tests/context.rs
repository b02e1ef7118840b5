//! What is a part of an attempt, and how it ends from deep inside.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use leasehold_core::policy::{BoxError, Control, JobFailure};
use leasehold_core::testing::enqueued;
use leasehold_core::worker::{Args, Json, State as Shared, Summary, WorkerBuilder};
use leasehold_core::{Attempt, JobId, JobRecord, NewJob, Progress, QueueName, Reason, State, Store, Worker};

use crate::store;

/// Runs one job by the worker's handler for `work`.
async fn run(build: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> (Summary, JobRecord) {
    let store: Store = store();
    let job = NewJob::dynamic("work", &3).unwrap().max_attempts(5);
    store.queue("default").unwrap().enqueue(job).await.unwrap();
    let summary = build(Worker::builder(&store).until_idle()).build().unwrap().run().await;
    (summary, enqueued(&store, "work").await.unwrap().remove(0))
}

fn here() -> Option<JobId> {
    Attempt::current().map(|attempt| attempt.id())
}

async fn deeper() -> Option<JobId> {
    tokio::task::yield_now().await;
    here()
}

#[tokio::test(start_paused = true)]
async fn code_knows_which_attempt_it_is_a_part_of() {
    async fn looks(attempt: Attempt) {
        let id = Some(attempt.id());
        assert_eq!((here(), deeper().await), (id, id));
        assert_eq!(tokio::spawn(deeper()).await.unwrap(), None, "a task is a part only if it is put into it");
        let put = attempt.clone();
        assert_eq!(tokio::spawn(async move { put.scope(deeper()).await }).await.unwrap(), id);
        let parts: Vec<_> = attempt.map([1, 2, 3], 2, |_| deeper()).collect().await;
        assert_eq!(parts, [id; 3]);
    }
    assert_eq!(here(), None);
    let (summary, job) = run(|worker| worker.handle("work", looks)).await;
    assert_eq!((summary.succeeded, job.last_failure()), (1, None));
}

/// What catches every error, as some libraries do.
async fn swallows(how: Control) -> Result<(), BoxError> {
    let work = async {
        Attempt::current().ok_or("no attempt")?.end(how).await;
        #[expect(unreachable_code, reason = "that is what is shown")]
        Ok::<(), BoxError>(())
    };
    let _ = work.await;
    panic!("nothing runs after the end");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_from_deep_inside() {
    let retries = || swallows(Control::Retry(Some(Duration::from_secs(60))));
    let (summary, job) = run(|worker| worker.handle("work", retries)).await;
    assert_eq!((summary.retried, job.state, job.attempt), (1, State::Scheduled, 1));
    assert_eq!(job.reason, Some(Reason::RetryRequested));

    fn slow() -> QueueName {
        QueueName::new("slow").unwrap()
    }
    let elsewhere = || swallows(Control::RetryIn { queue: slow(), after: Some(Duration::from_secs(60)) });
    let (summary, job) = run(|worker| worker.handle("work", elsewhere)).await;
    assert_eq!((summary.retried, job.state, job.attempt), (1, State::Scheduled, 1));
    assert_eq!((job.queue, job.reason), (slow(), Some(Reason::RetryRequested)));

    let snoozes = || swallows(Control::Snooze(Duration::from_secs(60)));
    let (summary, job) = run(|worker| worker.handle("work", snoozes)).await;
    assert_eq!((summary.released, job.state, job.attempt), (1, State::Scheduled, 0));

    let aborts = || swallows(Control::Abort("enough".into()));
    let (summary, job) = run(|worker| worker.handle("work", aborts)).await;
    assert_eq!((summary.cancelled, job.state, job.reason), (1, State::Cancelled, Some(Reason::Aborted)));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_tried_again_by_those_who_work_on_another_queue() {
    async fn work(attempt: Attempt) -> Result<(), BoxError> {
        match attempt.job().queue.as_str() {
            "default" => Err(Control::RetryIn { queue: "slow".try_into()?, after: None }.into()),
            "slow" => Err("fails there, and is tried again there".into()),
            other => Err(other.into()),
        }
    }
    let store = store();
    let job = NewJob::dynamic("work", &3).unwrap().max_attempts(3);
    let id = store.queue("default").unwrap().enqueue(job).await.unwrap();
    let run = async |queue: &str| {
        let worker = Worker::builder(&store).queue(queue).handle("work", work).until_idle();
        worker.build().unwrap().run().await
    };
    assert_eq!(run("default").await.retried, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    let idle = run("default").await;
    assert_eq!(idle.retried + idle.failed, 0, "it has left that queue");
    assert_eq!(run("slow").await.retried, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(run("slow").await.failed, 1);
    let job = store.find(id).await.unwrap().unwrap();
    assert_eq!((job.queue.as_str(), job.reason, job.attempt), ("slow", Some(Reason::MaxAttempts), 3));
    let counts = store.queue("default").unwrap().counts().await.unwrap();
    assert_eq!((counts.total(), counts.enqueued, counts.deleted), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_decision_outweighs_what_the_handler_returns() {
    async fn decides() {
        let attempt = Attempt::current().unwrap();
        attempt.will_end(JobFailure::error("mine", "decided").permanent());
        attempt.will_end(Control::Retry(None));
    }
    let (summary, job) = run(|worker| worker.handle("work", decides)).await;
    assert_eq!((summary.failed, job.state), (1, State::Failed));
    assert_eq!(job.last_failure().unwrap().class, "mine", "the first decision counts");

    async fn panics() {
        Attempt::current().unwrap().will_end(Control::Retry(None));
        panic!("after all");
    }
    let (_, job) = run(|worker| worker.handle("work", panics)).await;
    assert_eq!(job.last_failure().unwrap().reason, Reason::Panic);
}

#[tokio::test(start_paused = true)]
async fn a_handler_runs_another_as_a_part_of_its_attempt() {
    async fn whole(attempt: Attempt) -> Result<Json<u64>, BoxError> {
        let double = |n: u64| NewJob::dynamic("double", &n);
        let six: u64 = attempt.run(double(3)?).await?.ok_or("no result")?.parse()?;
        let failed = attempt.run(NewJob::dynamic("double", "six")?).await.unwrap_err();
        assert_eq!(failed.reason, Reason::BadPayload);
        assert_eq!(
            attempt.run(NewJob::dynamic("nobody's", &1)?).await.unwrap_err().reason,
            Reason::UnknownKind
        );
        assert_eq!(here(), Some(attempt.id()));
        Ok(Json(six))
    }
    async fn double(Args(n): Args<u64>, attempt: Attempt) -> Result<Json<u64>, BoxError> {
        assert_eq!((attempt.job().kind.as_str(), here()), ("double", Some(attempt.id())));
        attempt.progress(Progress { done: n, ..Progress::default() });
        Ok(Json(2 * n))
    }
    let (summary, job) = run(|worker| worker.handle("work", whole).handle("double", double)).await;
    assert_eq!((summary.succeeded, job.kind.as_str()), (1, "work"));
    assert_eq!(job.result.unwrap().parse::<u64>().unwrap(), 6);
    assert_eq!(job.progress.unwrap().done, 3, "it is the progress of the whole");

    async fn asks(attempt: Attempt) {
        let _ = attempt.run(NewJob::dynamic("snoozes", &1).unwrap()).await;
        panic!("the whole attempt has ended");
    }
    let snoozes = || async { Err::<(), _>(Control::Snooze(Duration::from_secs(9))) };
    let (summary, _) = run(|worker| worker.handle("work", asks).handle("snoozes", snoozes)).await;
    assert_eq!(summary.released, 1);
}

#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    through: Mutex<Vec<u64>>,
}

impl Crowd {
    /// Takes so many seconds, beside others.
    async fn work(self: Arc<Self>, seconds: u64) -> Result<u64, BoxError> {
        struct Leaves<'a>(&'a Crowd);
        impl Drop for Leaves<'_> {
            fn drop(&mut self) {
                self.0.now.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        let _leaves = Leaves(&self);
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        if seconds == 4 {
            return Err("four".into());
        }
        self.through.lock().unwrap().push(seconds);
        Ok(seconds)
    }
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_of_items_is_worked_on_at_once() {
    async fn maps(attempt: Attempt, crowd: Shared<Arc<Crowd>>) -> Result<(), BoxError> {
        let work = |seconds| Arc::clone(&crowd).work(seconds);
        let ordered: Vec<u64> = attempt.map([3, 1, 2, 1], 2, work).try_collect().await?;
        assert_eq!(ordered, [3, 1, 2, 1]);
        let as_they_come: Vec<u64> = attempt.map_unordered([3, 1, 1, 2], 2, work).try_collect().await?;
        assert_eq!(as_they_come, [1, 1, 3, 2]);
        let failed = attempt.map_unordered([4, 1, 9, 9, 9], 3, work).try_collect::<Vec<_>>().await;
        assert_eq!(failed.unwrap_err().to_string(), "four");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(crowd.now.load(Ordering::SeqCst), 0, "the first error ended the others");
        Ok(())
    }
    let crowd = Arc::new(Crowd::default());
    let (summary, job) = run(|worker| worker.state(crowd.clone()).handle("work", maps)).await;
    assert_eq!((summary.succeeded, job.last_failure()), (1, None));
    assert_eq!(crowd.most.load(Ordering::SeqCst), 3);
    assert!(!crowd.through.lock().unwrap().contains(&9));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_panics_fails_the_attempt() {
    async fn maps(attempt: Attempt) {
        let panics = |n: u64| async move { assert_ne!(n, 2, "two") };
        attempt.map([1, 2, 3], 2, panics).collect::<Vec<_>>().await;
    }
    let (_, job) = run(|worker| worker.handle("work", maps)).await;
    let failure = job.last_failure().unwrap();
    assert_eq!(failure.reason, Reason::Panic);
    assert!(failure.message.contains("two"), "{}", failure.message);
}
