//! What a job says, in its log.

use std::time::Duration;

use futures::StreamExt;
use leasehold_core::backend::{CheckIn, Level, LogSource, WorkerInfo, WorkerLine};
use leasehold_core::client::WorkerLog;
use leasehold_core::layer::Operation;
use leasehold_core::testing::run_all;
use leasehold_core::worker::{Args, JobLogs};
use leasehold_core::{Attempt, ErrorKind, JobArgs, JobId, Store, WorkerId, WorkerName};
use tracing_subscriber::layer::SubscriberExt;

use crate::probe::{Fate, Probe};
use crate::worker::{builder, enqueue};
use crate::{Add, store};

async fn lines(store: &Store, job: JobId) -> Vec<(Level, String)> {
    let page = store.logs(LogSource::Job(job), 0, 1_000).await.unwrap();
    page.lines.into_iter().map(|line| (line.level, line.message)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_job_says_through_tracing_is_in_its_log() {
    async fn talks(attempt: Attempt) {
        tracing::info!(pages = 3, file = "a b", "begun");
        tracing::debug!("a detail");
        attempt.map([1, 2], 1, |part| async move { tracing::warn!(part, "odd") }).collect::<Vec<_>>().await;
        tokio::spawn(async { tracing::error!("somebody else's") }).await.unwrap();
        tracing::error!("done");
    }
    let store = store();
    let job = enqueue(&store, 1, 0).await;
    let tracing = tracing_subscriber::registry().with(JobLogs::default());
    let _set = tracing::subscriber::set_default(tracing);
    tracing::info!("before");
    run_all(&store, builder(&store).handle(Add::KIND, talks).build().unwrap()).await.unwrap();
    let said = [
        (Level::Info, r#"begun pages=3 file="a b""#),
        (Level::Warn, "odd part=1"),
        (Level::Warn, "odd part=2"),
        (Level::Error, "done"),
    ];
    assert_eq!(lines(&store, job).await, said.map(|(level, text)| (level, text.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_lines_the_oldest_go_and_the_log_says_how_many() {
    let ms = |ms| tokio::time::sleep(Duration::from_millis(ms));
    let talks = move |Args(sum): Args<Add>, attempt: Attempt| async move {
        attempt.log(Level::Info, "begun");
        // Lines are gathered for some time after the first.
        ms(sum.b).await;
        (0..sum.a).for_each(|n| attempt.log(Level::Info, n.to_string()));
        ms(10 - sum.b).await;
    };
    let store = store();
    let few = enqueue(&store, 100, 1).await;
    let many = enqueue(&store, 10_030, 5).await;
    run_all(&store, builder(&store).handle(Add::KIND, talks).build().unwrap()).await.unwrap();
    let missing = "100 lines are missing here: more came than the store takes".to_owned();
    assert_eq!(lines(&store, few).await, [(Level::Info, "begun".to_owned()), (Level::Warn, missing)]);
    let kept = lines(&store, many).await;
    assert_eq!((kept.len(), kept.last().unwrap()), (1_000, &(Level::Info, "10029".to_owned())));
}

fn texts(log: &WorkerLog) -> Vec<&str> {
    log.lines.iter().map(|line| line.message.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_says_itself_is_in_its_own_log_also_when_it_is_gone() {
    let store = store();
    let job = enqueue(&store, 1, 0).await;
    let tracing = tracing_subscriber::registry().with(JobLogs::default());
    let _set = tracing::subscriber::set_default(tracing);
    tracing::info!("before");
    let begun = store.now().await.unwrap();
    let talks = || async {
        tracing::info!("in a job");
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    let worker = builder(&store).name("w").handle(Add::KIND, talks).build().unwrap();
    let id = worker.id();
    run_all(&store, worker).await.unwrap();
    tracing::info!("after");
    let log = store.worker_log(id, 0).await.unwrap();
    let begins = format!("the worker begins worker={id} name=w");
    assert_eq!(texts(&log), [begins.as_str(), "the worker stops jobs=0", "the worker has ended"]);
    assert_eq!(log.lines.iter().map(|line| line.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((log.lines[0].at, log.lines[0].level, log.gap), (begun, Level::Info, false));
    assert!(log.lines[1].at.since(begun) >= Duration::from_secs(60));
    let of_jobs = store.logs(LogSource::Worker(id), 0, 10).await.unwrap().lines;
    assert_eq!(
        of_jobs.iter().map(|line| (line.job, line.message.as_str())).collect::<Vec<_>>(),
        [(job, "in a job")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_workers_own_log_is_followed_while_it_is_in_trouble() {
    let probe = Probe::quiet();
    let store = probe.store();
    let tracing = tracing_subscriber::registry().with(JobLogs::default());
    let _set = tracing::subscriber::set_default(tracing);
    let running = builder(&store).handle(Add::KIND, || async {}).build().unwrap().start();
    let mut follow = Box::pin(store.follow_worker(running.id(), 0));
    let first = follow.next().await.unwrap().unwrap();
    assert!(texts(&first)[0].starts_with("the worker begins"), "{first:?}");
    let troubled = tokio::time::Instant::now();
    probe.set(|op| if op == Operation::Claim { Fate::Refuse(ErrorKind::Unavailable) } else { Fate::Pass });
    let next = follow.next().await.unwrap().unwrap();
    assert!(texts(&next)[0].starts_with("no jobs could be claimed; trying again"), "{next:?}");
    assert_eq!((next.lines[0].sequence, next.lines[0].level, next.gap), (2, Level::Warn, false));
    // A call is repeated for five seconds before it has failed.
    assert!(troubled.elapsed() < Duration::from_secs(8), "{:?}", troubled.elapsed());
    // More than are kept.
    tokio::time::sleep(Duration::from_hours(1)).await;
    let all = store.worker_log(running.id(), 0).await.unwrap();
    assert_eq!((all.lines.len(), all.gap), (100, true));
    assert!(all.lines.windows(2).all(|two| two[0].sequence + 1 == two[1].sequence));
    let rest = store.worker_log(running.id(), all.lines[98].sequence).await.unwrap();
    assert_eq!((rest.lines.len(), rest.gap), (1, false));
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_workers_own_log_is_bounded_before_it_reaches_the_store() {
    let store = store();
    let check_in = async |lines: u64| {
        let mut info = WorkerInfo::new(WorkerName::new("w").unwrap(), "h", 1);
        let line = |sequence| WorkerLine {
            sequence,
            age: Duration::ZERO,
            level: Level::Info,
            message: "x".repeat(2_000),
        };
        info.log = (1..=lines).map(line).collect();
        let worker = WorkerId::generate();
        let request = CheckIn { worker, info, lost_after: Duration::from_secs(1), leaving: false };
        store.backend().check_in(Default::default(), request).await.map(|_| worker)
    };
    let error = check_in(101).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let worker = check_in(100).await.unwrap();
    let log = store.worker_log(worker, 0).await.unwrap();
    assert!(log.lines.iter().all(|line| line.message.len() <= 1_024 && line.message.ends_with("… (cut)")));
    assert_eq!(log.lines.len(), 100);
    assert_eq!(store.worker_log(WorkerId::generate(), 0).await.unwrap(), WorkerLog::default());
}
