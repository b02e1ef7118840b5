//! What stays done of a record whose attempt does not end well.

use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::policy::Outcome;
use leasehold_core::testing::run_all;
use leasehold_core::worker::{EndedBy, RawOptions, WorkerBuilder};
use leasehold_core::{Attempt, ErrorKind, JobRecord, Payload, State, Store};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Runs, builder, jobs, noting, numbers, raw};
use crate::probe::{Fate, Probe};
use crate::store;

const SECOND: Duration = Duration::from_secs(1);

/// A worker that notes what it runs, fails at 3, and tells when it has come to the last of 41 payloads, which it never ends.
fn endless(store: &Store, runs: &Runs) -> (WorkerBuilder, mpsc::UnboundedReceiver<()>) {
    let (tell, told) = mpsc::unbounded_channel();
    let runs = runs.clone();
    let handler = move |payload: Payload| {
        let (text, _) = runs.note(&payload);
        let tell = tell.clone();
        async move {
            if text == "40" {
                tell.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            if text == "3" { Err("no good") } else { Ok(()) }
        }
    };
    (builder(store).handle_raw("click", RawOptions::default(), handler), told)
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_nothing_that_ended_long_before_it() {
    let (store, runs) = (store(), Runs::default());
    raw(&store).list().push_many(numbers(41)).await.unwrap();
    let (worker, mut told) = endless(&store, &runs);
    let running = worker.concurrency(1).build().unwrap().start();
    told.recv().await.unwrap();
    sleep(SECOND).await;
    assert_eq!(jobs(&store).await.len(), 1, "what failed waits for what does not end");
    drop(running);
    run_all(&store, noting(&store, &runs).build().unwrap()).await.unwrap();
    let twice: Vec<_> = runs.all().into_iter().filter(|(_, runs)| *runs != 1).collect();
    assert_eq!(twice, [("3".to_owned(), 2), ("40".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stopped_at_once_repeats_nothing_that_ended() {
    let (store, runs) = (store(), Runs::default());
    raw(&store).list().push_many(numbers(41)).await.unwrap();
    let (worker, mut told) = endless(&store, &runs);
    let running = worker.build().unwrap().start();
    told.recv().await.unwrap();
    running.stopper().interrupt();
    assert_eq!(running.join().await.unwrap().released, 1);
    run_all(&store, noting(&store, &runs).build().unwrap()).await.unwrap();
    let twice: Vec<_> = runs.all().into_iter().filter(|(_, runs)| *runs != 1).collect();
    assert_eq!(twice, [("3".to_owned(), 2), ("40".to_owned(), 2)]);
}

/// A worker whose handler fails at these payloads in their first so many runs.
fn failing(store: &Store, runs: &Runs, at: &'static [(&'static str, u32)]) -> WorkerBuilder {
    let runs = runs.clone();
    let handler = move |payload: Payload| {
        let (text, run) = runs.note(&payload);
        async move {
            if at.iter().any(|(at, runs)| *at == text && run <= *runs) { Err("not yet") } else { Ok(()) }
        }
    };
    builder(store).handle_raw("click", RawOptions::default(), handler)
}

/// Has the next so many calls that enqueue fail by this.
fn refuse_enqueues(probe: &Probe, mut calls: u32, kind: ErrorKind) {
    probe.set(move |op| {
        if op != Operation::Enqueue || calls == 0 {
            return Fate::Pass;
        }
        calls -= 1;
        Fate::Refuse(kind)
    });
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_repeats_nothing_that_ended() {
    let probe = Probe::quiet();
    let (store, runs) = (probe.store(), Runs::default());
    raw(&store).list().push_many(numbers(10)).await.unwrap();
    refuse_enqueues(&probe, 1, ErrorKind::Internal);
    let worker = failing(&store, &runs, &[("5", 2)]).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.retried, summary.succeeded), (1, 2));
    // Twice in the record, and once as a job.
    let more: Vec<_> = runs.all().into_iter().filter(|(_, runs)| *runs != 1).collect();
    assert_eq!(more, [("5".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_may_not_become_a_job_costs_the_others_nothing() {
    let probe = Probe::quiet();
    let (store, runs) = (probe.store(), Runs::default());
    raw(&store).list().push_many(numbers(10)).await.unwrap();
    // Three together, then the first of them alone.
    refuse_enqueues(&probe, 2, ErrorKind::TooLarge);
    let worker = failing(&store, &runs, &[("2", 2), ("4", 1), ("6", 1)]).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.retried, summary.succeeded), (1, 4));
    let more: Vec<_> = runs.all().into_iter().filter(|(_, runs)| *runs != 1).collect();
    assert_eq!(more, [("2", 3), ("4", 2), ("6", 2)].map(|(text, runs)| (text.to_owned(), runs)));
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_itself_back_does_so_alone() {
    let (store, runs) = (store(), Runs::default());
    let bundle = raw(&store).list().push_many(numbers(10)).await.unwrap()[0];
    let noted = runs.clone();
    let handler = move |payload: Payload| {
        let (text, run) = noted.note(&payload);
        async move { if text == "2" && run <= 3 { Outcome::Released } else { Outcome::Success(None) } }
    };
    let worker = builder(&store).handle_raw("click", RawOptions::default(), handler).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.succeeded, summary.released, runs.of("2"), runs.sum()), (2, 2, 4, 13));
    assert!(store.find(bundle).await.unwrap().is_none_or(|job| job.state == State::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_while_a_job_is_made_of_what_failed() {
    let probe = Probe::quiet();
    let store = probe.store();
    raw(&store).list().push_many(numbers(3)).await.unwrap();
    probe.set(|op| if op == Operation::Enqueue { Fate::Hang } else { Fate::Pass });
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = move |payload: Payload| {
        let tell = tell.clone();
        async move {
            match payload.as_bytes() {
                b"0" => return Err("no good"),
                b"1" => sleep(SECOND).await,
                _ => {
                    sleep(10 * SECOND).await;
                    tell.send(()).unwrap();
                }
            }
            Ok(())
        }
    };
    let options = RawOptions::default().concurrency(3);
    let running = builder(&store).handle_raw("click", options, handler).build().unwrap().start();
    timeout(11 * SECOND, told.recv()).await.expect("the last payload waits").unwrap();
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_because_it_is_told_to_has_not_failed() {
    let (store, runs) = (store(), Runs::default());
    let bundle = raw(&store).with(|job| job.max_attempts(1)).list().push_many(numbers(3)).await.unwrap()[0];
    let (tell, mut told) = mpsc::unbounded_channel();
    let (noted, failures) = (runs.clone(), Runs::default());
    let heeding = move |attempt: Attempt| {
        let (text, _) = noted.note(&attempt.job().payload);
        let tell = tell.clone();
        async move {
            if text == "1" {
                tell.send(()).unwrap();
                attempt.cancelled().await;
                return Err("told to end");
            }
            Ok(())
        }
    };
    let noted = failures.clone();
    let worker = builder(&store)
        .handle_raw("click", RawOptions::default(), heeding.clone())
        .on_failure(move |job: &JobRecord, _| drop(noted.note(&job.payload)));
    let running = worker.fail_fast().build().unwrap().start();
    told.recv().await.unwrap();
    let summary = running.stop().await.unwrap();
    assert_eq!((summary.released, summary.ended_by, failures.sum()), (1, EndedBy::Stopped, 0));
    assert_eq!(jobs(&store).await.len(), 0);

    // Whose record somebody cancels does not come back as a job either.
    let worker = builder(&store).handle_raw("click", RawOptions::default(), heeding).build().unwrap();
    let running = worker.start();
    told.recv().await.unwrap();
    store.cancel(bundle).await.unwrap();
    while store.find(bundle).await.unwrap().unwrap().state != State::Cancelled {
        sleep(SECOND).await;
    }
    assert_eq!(running.stop().await.unwrap().cancelled, 1);
    assert_eq!((jobs(&store).await.len(), runs.of("0"), runs.of("1"), runs.of("2")), (0, 1, 2, 0));
}
