//! One file, many callers and processes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use leasehold_core::backend::{Event, Find, Watch};
use leasehold_core::{Backend, JobId, State};

use crate::bench::{Bench, claim, counts, enqueue, jobs, open, settle, soon};

/// How many transactions the log of the file holds: each ends with a frame that tells the file's size.
fn commits(bench: &Bench) -> usize {
    let log = std::fs::read(bench.file().with_extension("db-wal")).unwrap();
    let frames = log[32..].chunks_exact(24 + 4096);
    frames.filter(|frame| frame[4..8] != [0; 4] && frame[8..16] == log[16..24]).count()
}

#[tokio::test]
async fn callers_that_come_together_share_a_commit() {
    let bench = Bench::new().await;
    let before = commits(&bench);
    let calls = (0..64).map(|_| enqueue(&bench.store, jobs(1)));
    for outcome in futures::future::join_all(calls).await {
        outcome.unwrap();
    }
    let commits = commits(&bench) - before;
    assert!((1..=8).contains(&commits), "{commits} commits for 64 calls");
    assert_eq!(counts(&bench.store).await.of(State::Queued), 64);
}

#[tokio::test]
async fn watchers_learn_of_other_connections_but_not_of_a_gap_by_their_own() {
    let bench = Bench::new().await;
    let mut events = bench.store.watch(soon(), Watch::default()).await.unwrap();
    for _ in 0..20 {
        enqueue(&bench.store, jobs(1)).await.unwrap();
        assert!(!matches!(events.next().await, Some(Event::Gap)));
    }
    let other = open(bench.file()).await;
    enqueue(&other, jobs(1)).await.unwrap();
    while events.next().await != Some(Event::Gap) {}
    bench.store.close().await;
    while events.next().await.is_some() {}
}

/// The variable by which a child process of these tests knows its file.
const CHILD: &str = "LEASEHOLD_SQLITE_CHILD";

/// Runs one of these tests as a process of its own.
fn spawn(test: &str, bench: &Bench) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, bench.file())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The ids that a child tells.
fn told(child: &mut Child) -> impl Iterator<Item = JobId> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first may stand behind what the test runner says.
    lines.map_while(Result::ok).filter_map(|line| line.rsplit_once("job ")?.1.parse().ok())
}

#[tokio::test]
async fn child_that_works() {
    let Ok(file) = std::env::var(CHILD) else { return };
    let store = open(file.into()).await;
    loop {
        let claimed = claim(&store, 7).await;
        if claimed.jobs.is_empty() {
            return;
        }
        settle(&store, &claimed).await;
        claimed.jobs.iter().for_each(|leased| println!("job {}", leased.job.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_share_the_work() {
    let bench = Bench::new().await;
    let jobs = jobs(1_000);
    let ids: HashSet<_> = jobs.iter().map(|job| job.id).collect();
    enqueue(&bench.store, jobs).await.unwrap();
    let mut children: Vec<_> = (0..4).map(|_| spawn("sharing::child_that_works", &bench)).collect();
    let worked: Vec<_> = children.iter_mut().flat_map(|child| told(child).collect::<Vec<_>>()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(worked.len(), 1_000, "no job is given out twice");
    assert_eq!(worked.into_iter().collect::<HashSet<_>>(), ids);
    assert_eq!(counts(&bench.store).await.of(State::Succeeded), 1_000);
}

#[tokio::test]
async fn child_that_enqueues() {
    let Ok(file) = std::env::var(CHILD) else { return };
    let store = open(file.into()).await;
    loop {
        for answer in enqueue(&store, jobs(3)).await.unwrap() {
            println!("job {}", answer.job);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_killed_process() {
    let bench = Bench::new().await;
    for _ in 0..3 {
        let mut child = spawn("sharing::child_that_enqueues", &bench);
        let mut told = told(&mut child);
        let mut acknowledged: Vec<_> = told.by_ref().take(100).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(told);
        let found = bench.store.find(soon(), Find { ids: acknowledged }).await.unwrap();
        assert!(found.len() >= 100 && found.iter().all(Option::is_some));
    }
    let counts = counts(&bench.store).await;
    assert_eq!(counts.of(State::Queued) % 3, 0, "a batch is there as a whole or not at all");
}
