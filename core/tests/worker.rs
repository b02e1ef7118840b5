use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::backend::{Expired, Level, LogSource, Recover, Settlement, TagRule};
use leasehold_core::policy::{Backoff, BoxError, ClassRule, Control, JobFailure, RetryPolicy, after_expiry};
use leasehold_core::testing::{enqueued, run_all};
use leasehold_core::worker::{Args, HandlerOptions, Json, State as Shared, WorkerBuilder};
use leasehold_core::{
    Attempt, ErrorKind, JobArgs, JobRecord, NewJob, Progress, Reason, State, Store, Tag, Worker,
};

use crate::{Add, store};

pub(crate) async fn add(Args(sum): Args<Add>) -> Result<Json<u64>, BoxError> {
    Ok(Json(sum.a.checked_add(sum.b).ok_or("too large")?))
}

pub(crate) fn builder(store: &Store) -> WorkerBuilder {
    Worker::builder(store).queue("sums")
}

pub(crate) async fn enqueue(store: &Store, a: u64, b: u64) -> leasehold_core::JobId {
    store.queue("sums").unwrap().enqueue(Add { a, b }).await.unwrap()
}

pub(crate) async fn only(store: &Store) -> JobRecord {
    enqueued(store, Add::KIND).await.unwrap().remove(0)
}

/// Recovers all leases that ran out, as any worker does.
pub(crate) async fn recover(store: &Store) {
    let backend = store.backend();
    let expired = backend.expired(Default::default(), Expired { limit: 100 }).await.unwrap();
    let settlements = expired.iter().map(|lease| {
        let decision = after_expiry(lease, &RetryPolicy::default(), 0.0);
        Settlement {
            job: lease.job,
            token: lease.token,
            verdict: decision.verdict,
            failure: decision.failure,
        }
    });
    backend.recover(Default::default(), Recover { settlements: settlements.collect() }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn runs_typed_handlers_and_keeps_their_results() {
    let store = store();
    let job = enqueue(&store, 2, 3).await;
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.succeeded, summary.lost), (1, 0));
    let done = store.find(job).await.unwrap().unwrap();
    assert_eq!((done.state, done.attempt), (State::Succeeded, 1));
    assert_eq!(done.result.unwrap().parse::<u64>().unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_hours_retries_run_in_a_moment_of_real_time() {
    let store = store();
    enqueue(&store, 1, 1).await;
    let tries = Arc::new(AtomicU32::new(0));
    async fn flaky(attempt: Attempt, tries: Shared<Arc<AtomicU32>>) -> Result<(), &'static str> {
        assert_eq!(tries.fetch_add(1, Ordering::SeqCst) + 1, attempt.number());
        if attempt.number() < 12 { Err("not yet") } else { Ok(()) }
    }
    let begun = store.now().await.unwrap();
    let worker = builder(&store).state(tries.clone()).handle(Add::KIND, flaky).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.retried, summary.succeeded), (11, 1));
    let job = only(&store).await;
    assert_eq!((job.attempt, job.history.len()), (12, 10));
    assert_eq!(
        (job.history[0].attempt, job.history[9].attempt),
        (1, 11),
        "the first and the latest are kept"
    );
    assert!(store.now().await.unwrap().since(begun) > Duration::from_mins(15));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_with_its_message_and_place() {
    let store = store();
    store
        .queue("sums")
        .unwrap()
        .enqueue(NewJob::of(&Add { a: 1, b: 1 }).unwrap().max_attempts(1))
        .await
        .unwrap();
    enqueue(&store, 2, 2).await;
    async fn fragile(Args(sum): Args<Add>) {
        assert!(sum.a != 1, "cannot add {}", sum.a);
    }
    let worker = builder(&store).handle(Add::KIND, fragile).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.succeeded, summary.failed), (1, 1), "the worker goes on after a panic");
    let job = only(&store).await;
    assert_eq!((job.state, job.reason), (State::Failed, Some(Reason::MaxAttempts)));
    let failure = job.last_failure().unwrap();
    assert_eq!((failure.reason, failure.class.as_str()), (Reason::Panic, "panic"));
    assert!(
        failure.message.contains("cannot add 1") && failure.message.contains("worker.rs"),
        "{}",
        failure.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_fit_fails_once_and_says_why() {
    let store = store();
    store.queue("sums").unwrap().enqueue(NewJob::dynamic(Add::KIND, "three").unwrap()).await.unwrap();
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.failed, summary.retried), (1, 0));
    let job = only(&store).await;
    assert_eq!((job.state, job.reason), (State::Failed, Some(Reason::BadPayload)));
    assert!(job.last_failure().unwrap().message.contains("Add"), "{:?}", job.history);
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_a_handler_is_left_for_others_and_blocks_nothing() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue_all((0..100).map(|n| NewJob::dynamic("unknown", &n).unwrap().priority(9))).await.unwrap();
    let job = enqueue(&store, 1, 2).await;
    let summary = builder(&store).handle(Add::KIND, add).until_idle().build().unwrap().run().await;
    assert_eq!(summary.succeeded, 1);
    assert_eq!(store.find(job).await.unwrap().unwrap().state, State::Succeeded);
    assert!(enqueued(&store, "unknown").await.unwrap().iter().all(|job| job.attempt == 0));
}

#[tokio::test(start_paused = true)]
async fn each_way_to_end_is_told_apart() {
    let store = store();
    async fn by_number(
        Args(sum): Args<Add>,
        attempt: Attempt,
        put_off: Shared<Mutex<Vec<u64>>>,
    ) -> Result<(), BoxError> {
        let soon = Duration::from_secs(5);
        let first_time = || {
            let mut put_off = put_off.lock().unwrap();
            let first = !put_off.contains(&sum.a);
            put_off.push(sum.a);
            first
        };
        match (sum.a, attempt.number()) {
            (0, _) => Err(Control::Abort("not wanted".into()).into()),
            (1, _) => Err(JobFailure::error("mine", "hopeless").permanent().into()),
            (2, 1) => Err(Control::Retry(Some(soon)).into()),
            (3, 1) if first_time() => Err(Control::Snooze(soon).into()),
            (4, 1) if first_time() => Err(Control::RateLimited(soon).into()),
            _ => Ok(()),
        }
    }
    for a in 0..5 {
        enqueue(&store, a, 0).await;
    }
    let put_off = Mutex::new(Vec::<u64>::new());
    let worker = builder(&store).state(put_off).handle(Add::KIND, by_number).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let ends: Vec<_> =
        enqueued(&store, Add::KIND).await.unwrap().iter().map(|j| (j.state, j.reason, j.attempt)).collect();
    assert_eq!(
        ends,
        [
            (State::Cancelled, Some(Reason::Aborted), 1),
            (State::Failed, Some(Reason::Error), 1),
            (State::Succeeded, None, 2),
            (State::Succeeded, None, 1),
            (State::Succeeded, None, 1),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn retries_wait_by_the_rule_of_their_class() {
    let store = store();
    enqueue(&store, 1, 1).await;
    let policy = RetryPolicy::new(Backoff::Fixed { delay: Duration::from_secs(1) })
        .class("busy", ClassRule::Backoff(Backoff::Fixed { delay: Duration::from_secs(100) }));
    async fn busy_then_done(attempt: Attempt) -> Result<(), JobFailure> {
        if attempt.number() == 1 { Err(JobFailure::error("busy", "come again")) } else { Ok(()) }
    }
    let options = HandlerOptions::default().retry(policy);
    let worker = builder(&store).handle_with(Add::KIND, options, busy_then_done).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let job = only(&store).await;
    assert!(job.finished_at.unwrap().since(job.enqueued_at) >= Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn a_time_out_ends_a_handler_that_does_not_end_itself() {
    let store = store();
    enqueue(&store, 1, 1).await;
    async fn slow(attempt: Attempt) {
        if attempt.number() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let options = HandlerOptions::default().timeout(Duration::from_secs(90));
    let worker = builder(&store).handle_with(Add::KIND, options, slow).build().unwrap();
    run_all(&store, worker).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt, job.history[0].reason), (State::Succeeded, 2, Reason::Timeout));
    let ran = job.history[0].at.since(job.enqueued_at);
    assert!(
        ran >= Duration::from_secs(90) && ran < Duration::from_secs(95),
        "the lease of 30 s was renewed: {ran:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn never_runs_more_than_its_concurrency_and_renews_what_waits() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue_all((0..200).map(|a| Add { a, b: 0 })).await.unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (now, most.clone());
    async fn busy(counters: Shared<(Arc<AtomicUsize>, Arc<AtomicUsize>)>, Args(sum): Args<Add>) {
        let (now, most) = &*counters.0;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // The first ones are quick, so that many are held ahead; then each takes longer than a lease.
        tokio::time::sleep(Duration::from_millis(if sum.a < 50 { 1 } else { 5_000 })).await;
        now.fetch_sub(1, Ordering::SeqCst);
    }
    let worker = builder(&store).concurrency(4).lease(Duration::from_secs(3)).state(counters);
    let summary = run_all(&store, worker.handle(Add::KIND, busy).build().unwrap()).await.unwrap();
    assert_eq!(
        (most.load(Ordering::SeqCst), summary.succeeded, summary.lost, summary.retried),
        (4, 200, 0, 0)
    );
    let attempts: u32 = enqueued(&store, Add::KIND).await.unwrap().iter().map(|job| job.attempt).sum();
    assert_eq!(attempts, 200, "no job ran twice");
}

#[tokio::test(start_paused = true)]
async fn what_waits_too_long_behind_slow_jobs_is_given_back() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue_all((0..40).map(|a| Add { a, b: 0 })).await.unwrap();
    async fn quick_then_slow(Args(sum): Args<Add>) {
        tokio::time::sleep(Duration::from_millis(if sum.a < 20 { 1 } else { 100_000 })).await;
    }
    let slow = builder(&store).concurrency(1).handle(Add::KIND, quick_then_slow).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let helper = builder(&store).concurrency(20).handle(Add::KIND, add).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.of(State::Succeeded), counts.of(State::Running)), (39, 1), "{counts:?}");
    helper.stop().await.unwrap();
    slow.stopper().interrupt();
    slow.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn progress_and_logs_are_seen_while_the_job_runs() {
    let store = store();
    let job = enqueue(&store, 1, 0).await;
    async fn chatty(attempt: Attempt) {
        for done in 1..=3 {
            attempt.progress(Progress {
                done,
                total: Some(3),
                message: format!("step {done}"),
                cursor: None,
            });
            attempt.log(Level::Info, format!("step {done}"));
        }
        std::future::pending::<()>().await;
    }
    let worker = builder(&store).handle(Add::KIND, chatty).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = store.find(job).await.unwrap().unwrap();
    assert_eq!((record.state, record.progress.unwrap().done), (State::Running, 3));
    let page = store.logs(LogSource::Job(job), 0, 10).await.unwrap();
    let lines: Vec<_> = page.lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(lines, ["step 1", "step 2", "step 3"]);
    let same = store.logs(LogSource::Worker(worker.id()), 0, 10).await.unwrap();
    assert_eq!(same.lines.len(), 3);
    worker.stopper().interrupt();
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn layers_stand_around_every_handler() {
    let store = store();
    enqueue(&store, 1, 0).await;
    let seen = Arc::new(AtomicUsize::new(0));
    let counting = {
        let seen = seen.clone();
        tower::util::MapRequestLayer::new(move |attempt: Attempt| {
            seen.fetch_add(1, Ordering::SeqCst);
            attempt
        })
    };
    let hurry = tower::timeout::TimeoutLayer::new(Duration::from_secs(2));
    async fn first_is_slow(attempt: Attempt) {
        if attempt.number() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let worker =
        builder(&store).handle(Add::KIND, first_is_slow).layer(hurry).layer(counting).build().unwrap();
    run_all(&store, worker).await.unwrap();
    assert_eq!((seen.load(Ordering::SeqCst), only(&store).await.history[0].reason), (2, Reason::Error));
}

#[tokio::test(start_paused = true)]
async fn works_on_several_queues_kinds_and_tags() {
    let store = store();
    for (queue, tag) in [("a", "gpu"), ("b", "gpu"), ("b", "cpu"), ("c", "gpu")] {
        let job = NewJob::of(&Add { a: 1, b: 1 }).unwrap().tag(Tag::new(tag).unwrap());
        store.queue(queue).unwrap().enqueue(job).await.unwrap();
    }
    store
        .queue("a")
        .unwrap()
        .enqueue(NewJob::dynamic("other", &1).unwrap().tag(Tag::new("gpu").unwrap()))
        .await
        .unwrap();
    let tags = TagRule::JobHasAll([Tag::new("gpu").unwrap()].into());
    let worker = Worker::builder(&store).queue("a").queue("b").tags(tags).handle(Add::KIND, add);
    let summary = worker.handle("other", || async {}).until_idle().build().unwrap().run().await;
    assert_eq!(summary.succeeded, 3);
}

#[tokio::test]
async fn a_worker_that_cannot_work_is_refused_when_it_is_built() {
    let store = store();
    let handler = || async {};
    let refused = [
        builder(&store).build(),
        builder(&store).handle("", handler).build(),
        builder(&store).handle("k", handler).handle("k", handler).build(),
        builder(&store).handle("k", handler).concurrency(0).build(),
        builder(&store).handle("k", handler).lease(Duration::ZERO).build(),
        builder(&store).queue("bad\nname").handle("k", handler).build(),
        builder(&store).name("").handle("k", handler).build(),
    ];
    for built in refused {
        assert_eq!(built.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_picks_a_job_up_at_once_by_default() {
    let store = store();
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap().start();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(3_700)).await;
        let begun = tokio::time::Instant::now();
        let job = enqueue(&store, 1, 2).await;
        store.wait(job, Duration::from_secs(60)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(15), "{:?}", begun.elapsed());
    }
    worker.stop().await.unwrap();
}
