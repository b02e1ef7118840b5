use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, AppendLogs, Backend, Claim, Counts, Cursor, Enqueue, Filter, LogAppend, NewLine, Prune,
    Renew, Renewal, Select, Settle, Settlement, StopWorkers, Verdict, Watch,
};
use leasehold_core::layer::{Bound, Chaos, Check, Faults, Retry};
use leasehold_core::policy::{Backoff, RetryPolicy};
use leasehold_core::{
    ClaimId, Deadline, Due, ErrorKind, JobId, JobOptions, Keep, Kind, LimitKey, Limits, NewJob, Payload,
    QueueName, Reason, Retention, State, Tag, Timestamp, UniqueKey, UniqueScope, WorkerId,
};
use leasehold_memory::Memory;

use crate::probe::{Fate, Probe};
use crate::store;

fn job() -> NewJob {
    NewJob::new(Kind::new("k").unwrap(), Payload::EMPTY)
}

fn checked() -> Check {
    Check::new(Arc::new(Memory::new()), Limits::default())
}

async fn enqueue(backend: &dyn Backend, jobs: Vec<NewJob>) -> leasehold_core::Result<usize> {
    Ok(backend.enqueue(Deadline::default(), Enqueue { jobs }).await?.len())
}

#[tokio::test]
async fn names_the_limit_that_is_broken() {
    let backend = checked();
    let limit_and_over = [
        (vec![NewJob::new(Kind::new("k").unwrap(), vec![0; (1 << 20) + 1].into())], "1048576 bytes"),
        ((0..10_001).map(|_| job()).collect(), "10000 items"),
        (vec![(0..33).fold(job(), |job, n| job.tag(Tag::new(format!("t{n}")).unwrap()))], "32 tags"),
        (vec![(0..33).fold(job(), |job, n| job.header(n.to_string(), ""))], "32 headers"),
        (vec![job().header("h", "x".repeat(9_000))], "8192 bytes of headers"),
    ];
    for (jobs, limit) in limit_and_over {
        let error = enqueue(&backend, jobs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains(limit), "{error}");
        assert_eq!(error.operation(), Some("enqueue"));
    }
    assert_eq!(enqueue(&backend, (0..10_000).map(|_| job()).collect()).await.unwrap(), 10_000);
    assert_eq!(enqueue(&backend, Vec::new()).await.unwrap(), 0);
}

#[tokio::test]
async fn refuses_to_change_one_thing_twice_in_one_call() {
    let backend = checked();
    let (job, other, token) =
        (JobId::generate(), JobId::generate(), ClaimId::generate().token(JobId::generate()));
    let amend = |ids: Vec<JobId>| Amend { select: Select::Ids(ids), action: Action::Cancel, preview: false };
    let twice = backend.amend(Deadline::default(), amend(vec![job, other, job])).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidInput);
    assert!(twice.to_string().contains(&format!("the job {job} is named twice")), "{twice}");
    backend.amend(Deadline::default(), amend(vec![job, other])).await.unwrap();

    let renewal = |job| Renewal { job, token, lease: Duration::from_secs(1), progress: None };
    let renew = |jobs: Vec<JobId>| Renew { renewals: jobs.into_iter().map(renewal).collect() };
    let twice = backend.renew(Deadline::default(), renew(vec![job, job])).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidInput);
    assert!(!twice.to_string().contains(&token.to_string()), "{twice}");
    backend.renew(Deadline::default(), renew(vec![job, other])).await.unwrap();
}

#[tokio::test]
async fn refuses_absurd_numbers_before_the_store_is_touched() {
    let backend = checked();
    let forever = Duration::MAX;
    let key = || LimitKey::new("l").unwrap();
    let unique = || UniqueKey::new("u").unwrap();
    let absurd = Backoff::Exponential { first: forever, factor: f64::NAN, cap: forever, jitter: 7.0 };
    let kept = Retention { failed: Keep::For(forever), ..Retention::default() };
    for bad in [
        job().delay(forever),
        job().run_at(Timestamp::from_millis(-1)),
        job().run_at(Timestamp::from_millis(i64::MAX)),
        job().priority(1_001),
        job().max_attempts(0),
        job().max_attempts(u32::MAX),
        job().lease(Duration::ZERO),
        job().lease(forever),
        job().timeout(Duration::ZERO),
        job().timeout(forever),
        job().limit(key(), 0),
        job().unique(unique(), UniqueScope::For(Duration::ZERO)),
        job().unique(unique(), UniqueScope::For(forever)),
        job().retry(RetryPolicy::new(absurd)),
        job().retry(RetryPolicy::new(Backoff::Fixed { delay: forever })),
        job().retention(kept),
    ] {
        let shown = format!("{bad:?}");
        let error = enqueue(&backend, vec![bad]).await.expect_err(&shown);
        assert!(matches!(error.kind(), ErrorKind::InvalidInput), "{shown}: {error}");
    }
    assert!(backend.counts(Deadline::default(), Counts::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn accepts_the_extremes_that_are_allowed() {
    let century = leasehold_core::limits::SPAN;
    let options = JobOptions::default();
    assert_eq!(options.max_attempts, 20);
    let ok = job().delay(century).priority(-1_000).lease(Duration::from_millis(10)).keep(Keep::For(century));
    let mut at_the_end = job().priority(1_000);
    at_the_end.due = Due::At(Timestamp::MAX);
    assert_eq!(enqueue(&checked(), vec![ok, at_the_end]).await.unwrap(), 2);
}

#[tokio::test]
async fn checks_leases_results_and_progress() {
    let backend = checked();
    let queue = QueueName::default();
    let claim = |lease| Claim::new(WorkerId::generate(), [queue.clone()], 1, lease);
    for lease in [Duration::ZERO, Duration::from_hours(25)] {
        let error = backend.claim(Deadline::default(), claim(lease)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let job = JobId::generate();
    let settle = |verdict| Settlement { job, token: ClaimId::generate().token(job), verdict, failure: None };
    let large = Verdict::Succeed { result: Some(vec![0; (1 << 20) + 1].into()) };
    let late = Verdict::Retry { reason: Reason::Error, delay: Duration::MAX, queue: None };
    for (verdict, kind) in [(large, ErrorKind::TooLarge), (late, ErrorKind::InvalidInput)] {
        let request = Settle { settlements: vec![settle(verdict)] };
        assert_eq!(backend.settle(Deadline::default(), request).await.unwrap_err().kind(), kind);
    }
    let token = ClaimId::generate().token(job);
    let progress = Some(leasehold_core::Progress { message: "x".repeat(2_000), ..Default::default() });
    let renewal = leasehold_core::backend::Renewal { job, token, lease: Duration::from_secs(1), progress };
    let error = backend.renew(Deadline::default(), Renew { renewals: vec![renewal] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let line = NewLine { level: leasehold_core::backend::Level::Info, message: "x".repeat(1 << 20) };
    let append = LogAppend { job, token, position: 0, lines: vec![line] };
    let request = leasehold_core::backend::AppendLogs { appends: vec![append] };
    backend.append_logs(Deadline::default(), request).await.expect("a long line is cut, not refused");
}

#[tokio::test(start_paused = true)]
async fn a_bad_line_is_got_over_and_changes_nothing() {
    let memory = Memory::new();
    let faults = Faults {
        refused: 0.2,
        request_lost: 0.2,
        reply_lost: 0.2,
        repeated: 0.2,
        late: 0.2,
        delayed: 0.2,
        hung: 0.0,
    };
    let chaos = Retry::new(Arc::new(Chaos::new(Arc::new(memory.clone()), faults, 7)));
    let patient = || Deadline::after(Duration::from_secs(600));
    for _ in 0..100 {
        chaos.enqueue(patient(), Enqueue { jobs: vec![job()] }).await.unwrap();
    }
    let counts = memory.counts(Deadline::default(), Counts::default()).await.unwrap();
    assert_eq!(counts[0].total(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_said_to_be_so_in_time() {
    let faults = Faults { refused: 1.0, ..Faults::default() };
    let down = Retry::new(Arc::new(Chaos::new(Arc::new(Memory::new()), faults, 7)));
    let begun = tokio::time::Instant::now();
    let error = enqueue(&down, vec![job()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_transient());
    assert!(begun.elapsed() <= Deadline::DEFAULT, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_left_at_the_deadline() {
    let hanging = Bound::new(Arc::new(Chaos::new(
        Arc::new(Memory::new()),
        Faults { hung: 1.0, ..Faults::default() },
        7,
    )));
    let begun = tokio::time::Instant::now();
    let error = enqueue(&hanging, vec![job()]).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::Unknown, Deadline::DEFAULT));
    let error = hanging.counts(Deadline::default(), Counts::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_was_not_answered_leaves_the_call_unknown() {
    for last in [ErrorKind::Unavailable, ErrorKind::Full] {
        let mut calls = 0;
        let probe = Probe::new(move |_| {
            calls += 1;
            if calls == 1 { Fate::Lose } else { Fate::Refuse(last) }
        });
        let error = enqueue(&Retry::new(Arc::new(probe)), vec![job()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
    }
    let refused = Probe::new(|_| Fate::Refuse(ErrorKind::Full));
    let error = enqueue(&Retry::new(Arc::new(refused)), vec![job()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_begins_after_its_deadline_never_reaches_the_store() {
    let late = Bound::new(Arc::new(Probe::new(|_| Fate::Panic)));
    let error =
        late.enqueue(Deadline::after(Duration::ZERO), Enqueue { jobs: vec![job()] }).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unavailable, Some("enqueue")));
}

#[tokio::test]
async fn checks_what_is_asked_and_what_is_said() {
    let store = store();
    let long = || "x".repeat(100_000);
    let names = || vec![QueueName::default(); 5_000];
    let filters: [fn(&mut Filter); 6] = [
        |f| f.payload_contains = Some("x".repeat(2 << 20)),
        |f| f.error_class = Some("x".repeat(1_000)),
        |f| f.kinds = Some(vec![Kind::new("k").unwrap(); 5_000]),
        |f| f.tags = Some(vec![Tag::new("k").unwrap(); 5_000]),
        |f| f.states = Some(vec![State::Failed; 5_000]),
        |f| f.reasons = Some(vec![Reason::Error; 5_000]),
    ];
    for set in filters {
        let mut filter = Filter::default();
        set(&mut filter);
        assert_eq!(store.list(filter.clone(), None, 10).await.unwrap_err().kind(), ErrorKind::TooLarge);
        let mut bulk = store.amend_all(filter, Action::Cancel).await.unwrap();
        assert_eq!(bulk.next().await.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    let too_large = |error: leasehold_core::Error| assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    too_large(store.list(Filter::default(), Some(Cursor(long())), 10).await.unwrap_err());
    too_large(store.stop_workers(StopWorkers::Host(long())).await.unwrap_err());
    let (backend, by) = (store.backend(), Deadline::default());
    too_large(backend.counts(by, Counts { queues: Some(names()) }).await.unwrap_err());
    too_large(backend.watch(by, Watch { queues: Some(names()), logs: false }).await.err().unwrap());
    let job = JobId::generate();
    let append = LogAppend { job, token: ClaimId::generate().token(job), position: 0, lines: Vec::new() };
    too_large(backend.append_logs(by, AppendLogs { appends: vec![append; 20_000] }).await.unwrap_err());
    let prune = Prune { limit: 1, workers_after: Duration::MAX };
    assert_eq!(backend.prune(by, prune).await.unwrap_err().kind(), ErrorKind::InvalidInput);

    let queue = store.queue("q").unwrap();
    for name in ["", "a\0", " a"] {
        let job = self::job().header(name, "v");
        assert_eq!(queue.enqueue(job).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    queue.pause(long(), long()).await.expect("text for people is cut, not refused");
    let pause = store.queues().await.unwrap()[0].settings.pause.clone().unwrap();
    assert!(pause.by.len() <= 1_024 && pause.reason.len() <= 1_024);
}

#[tokio::test]
async fn a_late_request_arrives_before_the_next_one_of_its_kind() {
    let memory = Memory::new();
    let chaos = Chaos::new(Arc::new(memory.clone()), Faults { late: 1.0, ..Faults::default() }, 7);
    let error = enqueue(&chaos, vec![job()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let enqueued = async || {
        let counts = memory.counts(Deadline::default(), Counts::default()).await.unwrap();
        counts.iter().map(|queue| queue.enqueued).sum::<u64>()
    };
    assert_eq!(enqueued().await, 0);
    chaos.set(Faults { delayed: 1.0, ..Faults::default() });
    enqueue(&chaos, vec![job()]).await.unwrap();
    assert_eq!(enqueued().await, 2);
}
