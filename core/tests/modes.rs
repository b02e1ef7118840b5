//! How a worker chooses what to take, and when it ends by itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::policy::JobFailure;
use leasehold_core::testing::enqueued;
use leasehold_core::worker::{EndedBy, HandlerOptions, QueueChoice, State as Shared};
use leasehold_core::{Attempt, ErrorKind, JobRecord, Limits, NewJob, Reason, State, Store, Worker};
use tokio::time::Instant;

use crate::probe::{Fate, Probe};
use crate::store;

type Ran = Arc<Mutex<Vec<String>>>;

/// Notes which jobs ran, by queue and kind.
async fn note(attempt: Attempt, ran: Shared<Ran>) {
    ran.lock().unwrap().push(format!("{}/{}", attempt.job().queue, attempt.job().kind));
}

fn ran(ran: &Ran) -> Vec<String> {
    std::mem::take(&mut ran.lock().unwrap())
}

async fn enqueue(store: &Store, queue: &str, kind: &str, count: usize) {
    let jobs = (0..count).map(|n| NewJob::dynamic(kind, &n).unwrap());
    store.queue(queue).unwrap().enqueue_all(jobs).await.unwrap();
}

async fn states(store: &Store, kind: &str) -> Vec<(State, u32)> {
    enqueued(store, kind).await.unwrap().iter().map(|job| (job.state, job.attempt)).collect()
}

#[tokio::test(start_paused = true)]
async fn takes_no_more_jobs_than_it_may() {
    let store = store();
    enqueue(&store, "default", "work", 10).await;
    let worker = Worker::builder(&store).concurrency(2).max_jobs(3).handle("work", || async {});
    let summary = worker.build().unwrap().run().await;
    assert_eq!((summary.succeeded, summary.ended_by), (3, EndedBy::MaxJobs));
    let waiting = states(&store, "work").await.into_iter().filter(|job| *job == (State::Queued, 0));
    assert_eq!(waiting.count(), 7);
}

#[tokio::test(start_paused = true)]
async fn runs_as_many_jobs_as_it_may_though_some_were_given_back_because_they_waited() {
    let store = store();
    enqueue(&store, "default", "work", 40).await;
    async fn slower(begun: Shared<Arc<AtomicUsize>>) {
        let quick = begun.fetch_add(1, Ordering::SeqCst) < 10;
        tokio::time::sleep(Duration::from_millis(if quick { 1 } else { 5_000 })).await;
    }
    let worker = Worker::builder(&store).concurrency(1).max_jobs(20).state(Arc::<AtomicUsize>::default());
    let summary = worker.handle("work", slower).build().unwrap().run().await;
    assert!(summary.released > 0, "{summary:?}");
    assert_eq!((summary.succeeded, summary.ended_by), (20, EndedBy::MaxJobs));
}

#[tokio::test(start_paused = true)]
async fn is_not_idle_for_a_claim_that_it_made_again() {
    for choice in [QueueChoice::Merged, QueueChoice::Strict, QueueChoice::Parallel] {
        let begun = Instant::now();
        let probe = Probe::new(move |operation| match operation {
            Operation::Claim if begun.elapsed() < Duration::from_secs(8) => Fate::Refuse(ErrorKind::Unknown),
            _ => Fate::Pass,
        });
        let store = probe.store();
        enqueue(&store, "second", "work", 5).await;
        let worker = Worker::builder(&store).queue("first").queue("second").queue_choice(choice.clone());
        let summary = worker.until_idle().handle("work", || async {}).build().unwrap().run().await;
        assert_eq!((summary.succeeded, summary.ended_by), (5, EndedBy::Idle), "{choice:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_for_the_one_job_that_it_may_take() {
    let store = store();
    let worker = Worker::builder(&store).max_jobs(1).handle("work", || async {}).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    enqueue(&store, "default", "work", 2).await;
    let summary = worker.join().await.unwrap();
    assert_eq!((summary.succeeded, summary.ended_by), (1, EndedBy::MaxJobs));
}

#[tokio::test(start_paused = true)]
async fn takes_none_once_its_time_is_over_and_runs_what_it_holds() {
    let store = store();
    enqueue(&store, "default", "work", 100).await;
    let slow = || tokio::time::sleep(Duration::from_secs(1));
    let worker = Worker::builder(&store).concurrency(1).max_time(Duration::from_millis(9_500));
    let summary = worker.handle("work", slow).build().unwrap().run().await;
    assert_eq!((summary.succeeded, summary.released, summary.ended_by), (10, 0, EndedBy::MaxTime));
}

#[tokio::test(start_paused = true)]
async fn ends_when_its_process_is_too_large() {
    let store = store();
    let worker = |bytes| Worker::builder(&store).max_memory(bytes).until_idle().handle("work", || async {});
    assert_eq!(worker(1).build().unwrap().run().await.ended_by, EndedBy::MaxMemory);
    assert_eq!(worker(usize::MAX).build().unwrap().run().await.ended_by, EndedBy::Idle);
}

#[tokio::test(start_paused = true)]
async fn stops_at_the_first_failure() {
    let store = store();
    enqueue(&store, "default", "work", 1).await;
    enqueue(&store, "default", "bad", 1).await;
    enqueue(&store, "default", "work", 3).await;
    let worker = Worker::builder(&store).concurrency(1).fail_fast();
    let worker = worker.handle("work", || async {}).handle("bad", || async { Err::<(), _>("no") });
    let summary = worker.build().unwrap().run().await;
    assert_eq!((summary.succeeded, summary.retried, summary.ended_by), (1, 1, EndedBy::Failure));
    let untouched = states(&store, "work").await.into_iter().filter(|job| *job == (State::Queued, 0));
    assert_eq!(untouched.count(), 3, "what waited was given back with its attempt");
}

#[tokio::test(start_paused = true)]
async fn redoes_what_has_failed_of_its_own_kinds_and_queues() {
    let store = store();
    for (queue, kind) in [("default", "work"), ("default", "other"), ("elsewhere", "work")] {
        let job = NewJob::dynamic(kind, &0).unwrap().max_attempts(1);
        store.queue(queue).unwrap().enqueue(job).await.unwrap();
    }
    let fails = || async { Err::<(), _>("no") };
    let worker = Worker::builder(&store).queue("default").queue("elsewhere").until_idle();
    worker.handle("work", fails).handle("other", fails).build().unwrap().run().await;
    let seen = Ran::default();
    let worker = Worker::builder(&store).redo_failed().until_idle().state(seen.clone());
    let worker = worker.handle("work", note).handle("other", note).except_kinds(["other"]);
    assert_eq!(worker.build().unwrap().run().await.succeeded, 1);
    assert_eq!(ran(&seen), ["default/work"]);
    assert_eq!(states(&store, "other").await, [(State::Failed, 1)]);
}

#[tokio::test(start_paused = true)]
async fn stops_while_it_sends_round_again_what_has_failed() {
    let probe = Probe::quiet();
    let mut limits = Limits::default();
    limits.page = 10;
    let store = Store::with_limits(Arc::new(probe.clone()), limits);
    let jobs = (0..100).map(|n| NewJob::dynamic("work", &n).unwrap().max_attempts(1));
    probe.undisturbed().queue("default").unwrap().enqueue_all(jobs).await.unwrap();
    let worker = || Worker::builder(&store).handle("work", || async { Err::<(), _>("no") });
    assert_eq!(worker().until_idle().build().unwrap().run().await.failed, 100);
    probe.set(|operation| match operation {
        Operation::Amend => Fate::Late(Duration::from_secs(4)),
        _ => Fate::Pass,
    });
    let running = worker().redo_failed().build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped = Instant::now();
    running.stop().await.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(6), "{:?}", stopped.elapsed());
}

async fn taken_by(store: &Store, choice: QueueChoice, jobs: usize) -> Vec<String> {
    let seen = Ran::default();
    let worker = Worker::builder(store).queue("first").queue("second").queue_choice(choice).concurrency(4);
    let worker = worker.max_jobs(jobs).state(seen.clone()).handle("work", note).handle("rush", note);
    worker.build().unwrap().run().await;
    ran(&seen)
}

#[tokio::test(start_paused = true)]
async fn takes_from_its_queues_by_its_choice() {
    for (choice, taken) in [
        (QueueChoice::Merged, ["second/rush", "second/rush", "second/rush", "second/rush"]),
        (QueueChoice::Strict, ["first/work", "first/work", "first/work", "second/rush"]),
        (
            QueueChoice::Weighted(vec![1_000_000, 0]),
            ["first/work", "first/work", "first/work", "second/rush"],
        ),
        (QueueChoice::Parallel, ["first/work", "first/work", "second/rush", "second/rush"]),
    ] {
        let store = store();
        enqueue(&store, "first", "work", 3).await;
        let rush = (0..6).map(|n| NewJob::dynamic("rush", &n).unwrap().priority(9));
        store.queue("second").unwrap().enqueue_all(rush).await.unwrap();
        let mut ran = taken_by(&store, choice.clone(), 4).await;
        ran.sort();
        assert_eq!(ran, taken, "{choice:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_dry_leaves_its_share_to_the_others() {
    let store = store();
    enqueue(&store, "second", "work", 4).await;
    assert_eq!(taken_by(&store, QueueChoice::Parallel, 4).await, ["second/work"; 4]);
}

#[tokio::test(start_paused = true)]
async fn one_handler_runs_every_kind_that_has_none_of_its_own() {
    let store = store();
    for kind in ["work", "one", "two", "three"] {
        enqueue(&store, "default", kind, 1).await;
    }
    let run =
        async |narrow: fn(leasehold_core::worker::WorkerBuilder) -> leasehold_core::worker::WorkerBuilder| {
            let seen = Ran::default();
            let worker = Worker::builder(&store).concurrency(1).until_idle().state(seen.clone());
            let worker = worker.handle("work", || async {}).handle_other(HandlerOptions::default(), note);
            narrow(worker).build().unwrap().run().await;
            ran(&seen)
        };
    assert_eq!(run(|worker| worker.only_kinds(["one"])).await, ["default/one"]);
    assert_eq!(run(|worker| worker.except_kinds(["three"])).await, ["default/two"]);
    assert_eq!(run(|worker| worker).await, ["default/three"]);
    assert_eq!(states(&store, "work").await, [(State::Succeeded, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_may_take_nothing_is_refused() {
    let worker = Worker::builder(&store()).handle("work", || async {}).only_kinds(["other"]);
    assert!(worker.build().unwrap_err().to_string().contains("no kind is left"));
}

#[tokio::test(start_paused = true)]
async fn tells_of_each_attempt_that_failed_and_why() {
    let store = store();
    for kind in ["error", "panic", "late", "fine"] {
        let job = NewJob::dynamic(kind, &0).unwrap().max_attempts(1).timeout(Duration::from_secs(1));
        store.queue("default").unwrap().enqueue(job).await.unwrap();
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = {
        let told = told.clone();
        move |job: &JobRecord, failure: &JobFailure| {
            told.lock().unwrap().push((job.kind.to_string(), failure.reason));
            assert_ne!(job.kind.as_str(), "error", "who is told may panic");
        }
    };
    let worker = Worker::builder(&store).concurrency(1).until_idle().on_failure(note);
    let worker = worker.handle("error", || async { Err::<(), _>("no") }).handle("fine", || async {});
    async fn panics() {
        panic!("oh");
    }
    let worker = worker.handle("panic", panics).handle("late", std::future::pending::<()>);
    let summary = worker.build().unwrap().run().await;
    assert_eq!((summary.succeeded, summary.failed), (1, 3));
    let reasons = [("error", Reason::Error), ("panic", Reason::Panic), ("late", Reason::Timeout)];
    assert_eq!(*told.lock().unwrap(), reasons.map(|(kind, reason)| (kind.to_owned(), reason)));
}
