//! Processes that share a folder are killed in the middle of their work, and nothing is lost or done twice.

#![allow(clippy::unwrap_used, reason = "in a test, helpers too may panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use leasehold_backend_files::Files;
use leasehold_conformance::history::{FileSink, Recorder, Rules, check, read_files};
use leasehold_core::backend::{Claim, Enqueue, Expired, NewFailure, Recover, Settle, Settlement, Verdict};
use leasehold_core::{
    Backend, Clock, Deadline, JobId, LeaseToken, LeasedJob, ManualClock, NewJob, QueueName, Reason,
    SystemClock, WorkerId,
};

/// The variables by which a child knows its folder and its name.
const FOLDER: &str = "LEASEHOLD_FILES_FOLDER";
const NAME: &str = "LEASEHOLD_FILES_NAME";
/// How often two processes are started and killed.
const ROUNDS: usize = 10;
const LEASE: Duration = Duration::from_mins(1);

fn recorder(folder: &Path, name: &str, files: Files) -> Recorder {
    let sink = FileSink::append(folder.join(format!("{name}.jsonl"))).unwrap();
    Recorder::wrap(Arc::new(files), name, Arc::new(sink))
}

fn settlement(job: JobId, token: LeaseToken, verdict: Verdict) -> Settlement {
    Settlement { job, token, verdict, failure: None }
}

async fn enqueue(store: &Recorder) {
    println!("calls");
    let jobs = (0..3).map(|n| NewJob::dynamic("work", &n).unwrap()).collect();
    store.enqueue(Deadline::default(), Enqueue { jobs }).await.unwrap();
}

async fn claim(store: &Recorder, worker: WorkerId) -> Vec<LeasedJob> {
    println!("calls");
    let claim = Claim::new(worker, [QueueName::default()], 4, LEASE);
    store.claim(Deadline::default(), claim).await.unwrap().jobs
}

/// Claims some jobs and settles them as succeeded; answers how many there were.
async fn work(store: &Recorder, worker: WorkerId) -> usize {
    let held = claim(store, worker).await;
    println!("calls");
    let succeed = || Verdict::Succeed { result: None };
    let settlements = held.iter().map(|held| settlement(held.job.id, held.token, succeed())).collect();
    store.settle(Deadline::default(), Settle { settlements }).await.unwrap();
    held.len()
}

#[tokio::test]
async fn child_that_works() {
    let (Ok(folder), Ok(name)) = (std::env::var(FOLDER), std::env::var(NAME)) else { return };
    let folder = Path::new(&folder);
    let (store, worker) = (recorder(folder, &name, Files::open(folder)), WorkerId::generate());
    loop {
        enqueue(&store).await;
        work(&store, worker).await;
    }
}

fn spawn(folder: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_works", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills a child as soon as it makes its call of this number, with no regard to how far it is.
fn kill(mut child: Child, call: usize) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first may stand behind what the test runner says.
    let calls = lines.map_while(Result::ok).filter(|line| line.ends_with("calls")).take(call).count();
    assert_eq!(calls, call, "a child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn nothing_is_lost_or_done_twice_when_processes_are_killed() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    Files::open(folder).setup(Deadline::default()).await.unwrap();
    // An hour ahead of those who are gone by then, so that their leases have run out.
    let ahead = ManualClock::at(SystemClock.now().plus(Duration::from_hours(1)));
    let last = recorder(folder, "last", Files::open(folder).clock(ahead));
    // One that was killed for certain while it held something.
    let silent = recorder(folder, "silent", Files::open(folder));
    enqueue(&silent).await;
    assert_eq!(claim(&silent, WorkerId::generate()).await.len(), 3);
    last.journal().killed("silent").unwrap();
    for round in 0..ROUNDS {
        let names = [format!("a{round}"), format!("b{round}")];
        let children = names.clone().map(|name| spawn(folder, &name));
        for (n, (child, name)) in children.into_iter().zip(&names).enumerate() {
            // Enqueues, claims and settlements take turns.
            kill(child, 4 + 5 * n + round % 3);
            last.journal().killed(name).unwrap();
        }
    }
    last.journal().clock_step(3_600_000).unwrap();
    drain(&last).await;
    last.journal().last_look(&last).await.unwrap();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let histories = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let verdict = check(&read_files(histories).unwrap(), &Rules::drained(10 * ROUNDS).losses(3));
    assert!(verdict.is_valid(), "{verdict}");
}

/// Takes back what the dead held, and does all that is left.
async fn drain(store: &Recorder) {
    let expired = store.expired(Deadline::default(), Expired { limit: 1_000 }).await.unwrap();
    let retry = || Verdict::Retry { reason: Reason::LeaseExpired, delay: Duration::ZERO, queue: None };
    let lost = |reason| NewFailure { reason, class: "lost".into(), message: String::new() };
    let settlements = expired.iter().map(|lease| Settlement {
        failure: Some(lost(Reason::LeaseExpired)),
        ..settlement(lease.job, lease.token, retry())
    });
    store.recover(Deadline::default(), Recover { settlements: settlements.collect() }).await.unwrap();
    while work(store, WorkerId::generate()).await > 0 {}
}
