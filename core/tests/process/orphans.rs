//! Programs end with their lease and with their worker.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leasehold_core::State;
use leasehold_core::layer::Operation;
use leasehold_core::worker::Process;
use tokio::time::Instant;

use super::{Fifo, enqueue, job, said, says, sh, worker};
use crate::probe::{Fate, Probe};
use crate::store;

/// The variable by which the worker that is to be killed knows its pipe.
const HELD: &str = "LEASEHOLD_TEST_HELD";
/// And its lease, in seconds.
const LEASE: &str = "LEASEHOLD_TEST_LEASE";

/// Holds the pipe, and so does what it starts, and neither heeds what asks them to end.
fn stubborn(held: &std::path::Path) -> Process {
    let script = r#"
        trap '' TERM HUP INT; exec 9>"$HELD"
        sh -c 'sleep 1000; echo late >&9' & (sleep 1000; echo late >&9) &
        echo begun; sleep 1000; echo late >&9
    "#;
    sh(script).env("HELD", held)
}

#[tokio::test]
async fn a_lost_lease_kills_its_program_before_it_ends() {
    let probe = Probe::quiet();
    let (store, held) = (probe.store(), Fifo::new());
    let left = Fifo::left(&held.path());
    let id = enqueue(&store, job("".to_owned())).await;
    let running =
        worker(&store, stubborn(&held.path())).lease(Duration::from_secs(6)).build().unwrap().start();
    says(&store, id, "begun").await;
    probe.set(|op| if op == Operation::Renew { Fate::Hang } else { Fate::Pass });
    assert_eq!(left.await, "");
    // By the store's clock too: whoever takes it over finds nobody at it.
    let job = probe.undisturbed().find(id).await.unwrap().unwrap();
    assert_eq!(job.state, State::Running);
    assert!(job.lease_until.unwrap() > store.now().await.unwrap());
    probe.set(|_| Fate::Pass);
    assert_eq!(running.join().await.unwrap().lost, 1);
}

#[tokio::test]
async fn a_worker_that_is_dropped_takes_its_programs_with_it() {
    let (store, held) = (store(), Fifo::new());
    let left = Fifo::left(&held.path());
    let id = enqueue(&store, job("".to_owned())).await;
    let running = worker(&store, stubborn(&held.path())).build().unwrap().start();
    says(&store, id, "begun").await;
    drop(running);
    assert_eq!(left.await, "");
}

#[tokio::test]
async fn worker_that_is_killed() {
    let Some(held) = std::env::var_os(HELD) else { return };
    let store = store();
    let id = enqueue(&store, job("".to_owned())).await;
    let lease = std::env::var(LEASE).map_or(30, |seconds| seconds.parse().unwrap());
    let worker = worker(&store, stubborn(held.as_ref())).lease(Duration::from_secs(lease));
    let running = worker.build().unwrap().start();
    says(&store, id, "begun").await;
    println!("begun");
    let ended = running.join().await.unwrap();
    println!("\n{} lost, {:?}", ended.lost, said(&store, id).await);
}

/// A worker in a process of its own, whose program has begun, and what it says from then on.
fn worker_elsewhere(held: &Fifo, lease: u64) -> (Child, impl Iterator<Item = String>) {
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::orphans::worker_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(HELD, held.path())
        .env(LEASE, lease.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The first may stand behind what the test runner says.
    assert!(lines.any(|line| line.ends_with("begun")), "it did not begin");
    (worker, lines)
}

#[tokio::test]
async fn a_worker_that_is_frozen_leaves_nothing_behind_when_its_lease_ends() {
    let held = Fifo::new();
    let left = Fifo::left(&held.path());
    let (mut worker, mut says) = worker_elsewhere(&held, 3);
    let pid = worker.id().to_string();
    let signal = |signal| Command::new("kill").args([signal, pid.as_str()]).status().unwrap();
    assert!(signal("-STOP").success());
    assert_eq!(left.await, "");
    // Once it goes on, it takes its lease for lost, and the program for nothing that has failed.
    assert!(signal("-CONT").success());
    let ended = says.find(|line| line.contains(" lost, ")).expect("it ended");
    assert!(ended.starts_with("1 lost, "), "{ended}");
    worker.wait().unwrap();
}

#[tokio::test]
async fn a_program_lives_as_long_as_its_lease_is_renewed() {
    let store = store();
    let id = enqueue(&store, job("".to_owned())).await;
    let lease = Duration::from_secs(2);
    worker(&store, sh("sleep 5; echo fine >&3")).lease(lease).build().unwrap().run().await;
    let job = store.find(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.result), (State::Succeeded, Some("fine\n".to_owned().into())));
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_nothing_behind() {
    let held = Fifo::new();
    let left = Fifo::left(&held.path());
    let (mut worker, _says) = worker_elsewhere(&held, 30);
    worker.kill().unwrap();
    let killed = Instant::now();
    worker.wait().unwrap();
    assert_eq!(left.await, "");
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
}
