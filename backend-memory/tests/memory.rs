//! What is this store's alone; all else is judged by the conformance suite.

#![allow(clippy::unwrap_used, reason = "in a test, helpers too may panic")]

use std::time::Duration;

use futures::StreamExt;
use leasehold_core::backend::{
    AppendLogs, Backend, Claim, Enqueue, Event, Find, Level, LogAppend, LogSource, NewLine, ReadLogs, Settle,
    Settlement, Verdict, Watch,
};
use leasehold_core::{
    Deadline, Error, ErrorKind, JobId, LeasedJob, ManualClock, NewJob, QueueName, Reason, State, WorkerId,
};
use leasehold_memory::{Config, Memory};

fn in_time() -> Deadline {
    Deadline::default()
}

fn job() -> NewJob {
    NewJob::dynamic("test", &()).unwrap()
}

async fn enqueue(store: &Memory, jobs: Vec<NewJob>) -> Result<Vec<JobId>, Error> {
    let answers = store.enqueue(in_time(), Enqueue { jobs }).await?;
    Ok(answers.into_iter().map(|answer| answer.job).collect())
}

async fn claim(store: &Memory, limit: usize) -> Vec<LeasedJob> {
    let lease = Duration::from_secs(30);
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], limit, lease);
    store.claim(in_time(), claim).await.unwrap().jobs
}

#[tokio::test]
async fn clones_are_the_same_store() {
    let store = Memory::new();
    let ids = enqueue(&store.clone(), vec![job()]).await.unwrap();
    assert_eq!(claim(&store, 10).await[0].job.id, ids[0]);
    assert!(claim(&store.clone(), 10).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_hour_passes_in_no_time() {
    let store = Memory::new();
    enqueue(&store, vec![job()]).await.unwrap();
    let first = claim(&store, 1).await.remove(0);
    let verdict = Verdict::Retry { reason: Reason::Error, delay: Duration::from_hours(1), queue: None };
    let settlement = Settlement { job: first.job.id, token: first.token, verdict, failure: None };
    store.settle(in_time(), Settle { settlements: vec![settlement] }).await.unwrap();
    assert!(claim(&store, 1).await.is_empty());
    tokio::time::sleep(Duration::from_hours(1)).await;
    let second = claim(&store, 1).await.remove(0);
    assert_eq!((second.job.id, second.job.attempt), (first.job.id, 2));
}

#[tokio::test]
async fn a_full_store_refuses_the_whole_batch_and_answers_a_repeated_one() {
    let mut config = Config::default();
    config.jobs = 2;
    let store = Memory::with(config, ManualClock::default());
    let two = vec![job(), job()];
    let error = enqueue(&store, [two.clone(), vec![job()]].concat()).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Full, Some("enqueue")));
    let ids = enqueue(&store, two.clone()).await.unwrap();
    assert_eq!(enqueue(&store, two).await.unwrap(), ids);
}

#[tokio::test]
async fn a_passed_deadline_changes_nothing() {
    let store = Memory::new();
    let job = job();
    let ids = vec![job.id];
    let error =
        store.enqueue(Deadline::after(Duration::ZERO), Enqueue { jobs: vec![job] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.find(in_time(), Find { ids }).await.unwrap(), [None]);
}

#[tokio::test]
async fn logs_keep_to_each_cap() {
    // Of six lines of 36 bytes, which count for 100 each, the last ones that fit.
    let (mut lines, mut bytes, mut all) = (Config::default(), Config::default(), Config::default());
    lines.log_lines_per_job = 4;
    bytes.log_bytes_per_job = 399;
    all.log_bytes = 200;
    for (config, kept) in [(lines, 4), (bytes, 3), (all, 2)] {
        let store = Memory::with(config, ManualClock::default());
        enqueue(&store, vec![job()]).await.unwrap();
        let leased = claim(&store, 1).await.remove(0);
        let line = |n| NewLine { level: Level::Info, message: format!("{n:36}") };
        let lines = (0..6).map(line).collect();
        let append = LogAppend { job: leased.job.id, token: leased.token, position: 0, lines };
        store.append_logs(in_time(), AppendLogs { appends: vec![append] }).await.unwrap();
        let worker = leased.job.worker.unwrap();
        for source in [LogSource::Job(leased.job.id), LogSource::Worker(worker)] {
            let read = |after| store.read_logs(in_time(), ReadLogs { source, after, limit: 10 });
            let page = read(0).await.unwrap();
            assert_eq!((page.lines.len(), page.gap), (kept, true), "{source:?}");
            assert_eq!(page.lines.last().unwrap().message.trim(), "5");
            assert!(!read(page.lines[0].sequence).await.unwrap().gap);
        }
    }
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so() {
    let mut config = Config::default();
    config.events = 2;
    let store = Memory::with(config, ManualClock::default());
    let mut events = store.watch(in_time(), Watch::default()).await.unwrap();
    let ids = enqueue(&store, vec![job(), job(), job()]).await.unwrap();
    let queue = QueueName::default();
    assert_eq!(events.next().await, Some(Event::Gap));
    let changed = Event::Changed { job: ids[2], queue: queue.clone(), state: State::Queued };
    assert_eq!(events.next().await, Some(changed));
    assert_eq!(events.next().await, Some(Event::Waiting { queue }));
    drop(store);
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn many_changes_at_once_are_told_by_one_event() {
    let store = Memory::on_clock(ManualClock::default());
    let mut events = store.watch(in_time(), Watch::default()).await.unwrap();
    for (jobs, told) in [(64, 64), (65, 0)] {
        enqueue(&store, (0..jobs).map(|_| job()).collect()).await.unwrap();
        for _ in 0..told {
            assert!(matches!(events.next().await, Some(Event::Changed { .. })));
        }
        if told == 0 {
            assert_eq!(events.next().await, Some(Event::Changes));
        }
        assert_eq!(events.next().await, Some(Event::Waiting { queue: QueueName::default() }));
    }
}

#[tokio::test]
async fn says_when_the_next_job_is_due_where_it_gave_fewer_than_asked() {
    let clock = ManualClock::default();
    let store = Memory::on_clock(clock.clone());
    let later = Duration::from_secs(20);
    enqueue(&store, vec![job(), job(), job().delay(later)]).await.unwrap();
    let claim = |limit| {
        let (worker, lease) = (WorkerId::generate(), Duration::from_secs(30));
        store.claim(in_time(), Claim::new(worker, [QueueName::default()], limit, lease))
    };
    assert_eq!(claim(1).await.unwrap().next_due, None, "it gave all that was asked for");
    let second = claim(2).await.unwrap();
    assert_eq!((second.jobs.len(), second.next_due), (1, Some(later)));
}
