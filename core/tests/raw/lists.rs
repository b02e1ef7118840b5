use std::time::Duration;

use futures::FutureExt;
use leasehold_core::client::RawCount;
use leasehold_core::layer::Operation;
use leasehold_core::policy::{Backoff, Control, JobFailure, Outcome, RetryPolicy};
use leasehold_core::testing::run_all;
use leasehold_core::worker::{HandlerOptions, RawOptions};
use leasehold_core::{Attempt, ErrorKind, JobRecord, Limits, Payload, Reason, State, Store, Worker};
use leasehold_memory::Memory;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Runs, builder, jobs, left, noting, numbers, raw};
use crate::probe::{Fate, Probe};
use crate::store;

const MS: Duration = Duration::from_millis(1);

fn text(payload: &Payload) -> &str {
    std::str::from_utf8(payload.as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_payload_is_run_once_and_nothing_is_kept() {
    let probe = Probe::quiet();
    let (store, runs) = (probe.store(), Runs::default());
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    probe.set(move |op| {
        counted.fetch_add(usize::from(op == Operation::Enqueue), std::sync::atomic::Ordering::SeqCst);
        Fate::Pass
    });
    let list = raw(&store).list();
    assert_eq!(list.push_many(numbers(100_000)).await.unwrap().len(), 100);
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(list.count().await.unwrap(), RawCount { payloads: 100_000, exact: true });
    assert_eq!(list.first(3).await.unwrap(), ["0", "1", "2"].map(|n| Payload::from(n.to_owned())));
    assert_eq!(list.clear().await.unwrap(), 100);
    list.push_many(numbers(10_000)).await.unwrap();
    let summary = run_all(&store, noting(&store, &runs).build().unwrap()).await.unwrap();
    assert_eq!((summary.succeeded, runs.all().len(), runs.sum()), (10, 10_000, 10_000));
    assert_eq!((left(&store).await, jobs(&store).await.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_list_is_looked_into_and_cleared() {
    let store = store();
    let list = raw(&store).list().per_record(2);
    list.push_many(numbers(401)).await.unwrap();
    assert_eq!(list.count().await.unwrap(), RawCount { payloads: 400, exact: false });
    list.push("last".to_owned()).await.unwrap();
    assert_eq!(list.first(1_000).await.unwrap().len(), 402);
    assert_eq!(list.clear().await.unwrap(), 202);
    assert_eq!((list.count().await.unwrap(), left(&store).await), (RawCount { payloads: 0, exact: true }, 0));
}

#[tokio::test(start_paused = true)]
async fn records_are_no_larger_than_they_may_be() {
    let mut limits = Limits::default();
    limits.payload_bytes = 1_000;
    let store = Store::with_limits(std::sync::Arc::new(Memory::new()), limits);
    let list = raw(&store).list();
    let payloads = (0..20).map(|_| vec![7; 300]);
    let records = list.pack(payloads).unwrap();
    assert!(records.len() == 7 && records.iter().all(|record| record.payload.len() <= 1_000));
    let queue = store.queue("raw").unwrap();
    queue.enqueue_all(records.clone()).await.unwrap();
    queue.enqueue_all(records).await.unwrap();
    assert_eq!(list.count().await.unwrap().payloads, 20);
    let error = list.push(vec![0; 1_000]).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message().starts_with("a payload has 1000 bytes; in a raw queue")),
        (ErrorKind::TooLarge, true)
    );
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = runs.clone();
    let count = move |payload: Payload| {
        assert_eq!(payload.as_bytes(), [7; 300]);
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async {}
    };
    run_all(&store, builder(&store).handle_raw("click", RawOptions::default(), count).build().unwrap())
        .await
        .unwrap();
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 20);
}

#[tokio::test(start_paused = true)]
async fn what_fails_becomes_a_job_of_its_own_and_holds_up_nothing() {
    let (store, runs) = (store(), Runs::default());
    let noted = runs.clone();
    let handler = move |attempt: Attempt| {
        let (payload, run) = noted.note(&attempt.job().payload);
        async move {
            match (payload.as_str(), run) {
                ("3", _) => Outcome::Failure(JobFailure::error("bad", "no good")),
                ("5", _) => Outcome::Failure(JobFailure::error("worse", "never").permanent()),
                ("7", 1) => panic!("out of beans"),
                ("9", 1) => Outcome::Snoozed { after: Duration::from_secs(3_600) },
                ("11", 1) => {
                    sleep(Duration::from_secs(60)).await;
                    Outcome::Success(None)
                }
                // From deep inside, which ends this one alone.
                ("13", 1) => attempt.end(Control::Retry(Some(Duration::from_secs(5)))).await,
                ("15", _) => attempt.end(Control::Abort("enough".into())).await,
                _ => Outcome::Success(None),
            }
        }
    };
    let list = raw(&store).with(|job| job.max_attempts(3).timeout(Duration::from_secs(1))).list();
    let bundle = list.push_many(numbers(600)).await.unwrap()[0];
    let failures = Runs::default();
    let told = failures.clone();
    let worker = builder(&store)
        .handle_raw("click", RawOptions::default(), handler)
        .on_failure(move |job: &JobRecord, _| drop(told.note(&job.payload)));
    let summary = run_all(&store, worker.build().unwrap()).await.unwrap();
    for n in numbers(600) {
        let wanted = match n.as_str() {
            "3" => 3,
            "5" | "7" | "9" | "11" | "13" => 2,
            _ => 1,
        };
        assert_eq!(runs.of(&n), wanted, "runs of {n}");
    }
    assert_eq!((failures.of("3"), failures.of("5"), failures.of("7"), failures.of("9")), (3, 2, 1, 0));
    // The record, and what came of the four that went well the second time.
    assert_eq!((summary.succeeded, summary.failed), (5, 2), "{summary:?}");
    assert!(store.find(bundle).await.unwrap().is_none_or(|job| job.state == State::Succeeded));
    left(&store).await;
    let mut kept = jobs(&store).await;
    kept.sort_by_key(|job| text(&job.payload).to_owned());
    let shown: Vec<_> =
        kept.iter().map(|job| (text(&job.payload), job.state, job.reason, job.attempt)).collect();
    assert_eq!(
        shown,
        [("3", State::Failed, Some(Reason::MaxAttempts), 2), ("5", State::Failed, Some(Reason::Error), 1)]
    );
    assert_eq!(kept[0].options.headers["leasehold.first_failure"], "bad: no good");
}

#[tokio::test(start_paused = true)]
async fn a_payload_may_go_to_another_queue() {
    let (store, runs) = (store(), Runs::default());
    let noted = runs.clone();
    let handler = move |attempt: Attempt| {
        let (payload, run) = noted.note(&attempt.job().payload);
        async move {
            match (payload.as_str(), run) {
                ("3" | "4", 1) => {
                    let queue = leasehold_core::QueueName::new("slow").unwrap();
                    Outcome::from(Control::RetryIn { queue, after: Some(Duration::ZERO) })
                }
                _ => Outcome::Success(None),
            }
        }
    };
    raw(&store).list().push_many(numbers(10)).await.unwrap();
    let worker = builder(&store).handle_raw("click", RawOptions::default(), handler.clone());
    worker.until_idle().build().unwrap().run().await;
    assert_eq!((runs.sum(), runs.of("3"), runs.of("4")), (10, 1, 1));
    let counts = store.queue("slow").unwrap().counts().await.unwrap();
    assert_eq!((counts.total(), counts.enqueued), (2, 2));
    let slow = Worker::builder(&store).queue("slow").until_idle();
    let slow = slow.handle_raw("click", RawOptions::default(), handler).build().unwrap();
    assert_eq!(slow.run().await.succeeded, 2);
    assert_eq!((runs.sum(), runs.of("3"), runs.of("4")), (12, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_does_not_hold_up_a_thousand_that_follow_at_once() {
    let (store, runs) = (store(), Runs::default());
    let noted = runs.clone();
    let handler = move |payload: Payload| {
        let (payload, run) = noted.note(&payload);
        async move { if payload == "0" && run == 1 { Err("not yet") } else { Ok(()) } }
    };
    raw(&store).list().per_record(5_000).push_many(numbers(5_000)).await.unwrap();
    let worker = builder(&store).handle_raw("click", RawOptions::default(), handler).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.succeeded, summary.released, runs.sum()), (2, 0, 5_001));
}

#[tokio::test(start_paused = true)]
async fn a_payload_knows_its_job_and_nothing_of_the_others() {
    let store = store();
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = move |attempt: Attempt| {
        let tell = tell.clone();
        async move {
            let job = attempt.job();
            assert_eq!((job.kind.as_str(), job.queue.as_str(), job.attempt), ("click", "raw", 1));
            assert_eq!(Attempt::current().unwrap().id(), attempt.id());
            assert_eq!(attempt.cursor::<u32>().unwrap(), None);
            attempt.progress(leasehold_core::Progress { done: 77, ..Default::default() });
            let alone = attempt.store().find(attempt.id()).await.unwrap().is_some();
            let saved = attempt.save_cursor(&1).await.map_err(|error| error.kind());
            assert_eq!(saved, if alone { Ok(()) } else { Err(ErrorKind::InvalidInput) });
            tell.send((text(&job.payload).to_owned(), attempt.id())).unwrap();
            if alone { Ok(()) } else { Err("once more") }
        }
    };
    let raw = raw(&store).with(|job| job.retry(RetryPolicy::new(Backoff::Fixed { delay: Duration::ZERO })));
    raw.list().push_many(numbers(2)).await.unwrap();
    run_all(&store, builder(&store).handle_raw("click", RawOptions::default(), handler).build().unwrap())
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Some(Some(one)) = told.recv().now_or_never() {
        seen.push(one);
    }
    seen.sort();
    assert_eq!(seen.len(), 4);
    assert!(seen[0] == seen[1] && seen[2] == seen[3] && seen[0].1 != seen[2].1, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn so_many_payloads_of_a_record_run_at_once() {
    let store = store();
    raw(&store).list().push_many(numbers(100)).await.unwrap();
    let options = RawOptions::default().concurrency(10).handler(HandlerOptions::default().timeout(10 * MS));
    // A time-out holds for each, not for all.
    let worker = builder(&store).handle_raw("click", options, || sleep(5 * MS)).until_idle().build().unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(worker.run().await.succeeded, 1);
    let took = begun.elapsed();
    assert!((50 * MS..90 * MS).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_only_what_is_not_known_to_be_done() {
    let (store, runs) = (store(), Runs::default());
    raw(&store).list().push_many(numbers(1_000)).await.unwrap();
    let noted = runs.clone();
    let slow = move |payload: Payload| {
        noted.note(&payload);
        sleep(10 * MS)
    };
    let worker = builder(&store).handle_raw("click", RawOptions::default(), slow.clone()).build().unwrap();
    let running = worker.start();
    sleep(Duration::from_secs(5)).await;
    drop(running);
    let before = runs.sum();
    assert!((400..600).contains(&before), "{before}");
    let worker = builder(&store).handle_raw("click", RawOptions::default(), slow).build().unwrap();
    run_all(&store, worker).await.unwrap();
    assert_eq!(runs.all().len(), 1_000);
    // What is said is written a tenth of a second later, at the latest.
    assert!(runs.sum() <= 1_000 + 25, "{}", runs.sum());
    assert_eq!(left(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_gives_the_rest_back_and_repeats_nothing() {
    let (store, runs) = (store(), Runs::default());
    let bundle = raw(&store).list().push_many(numbers(1_000)).await.unwrap()[0];
    let noted = runs.clone();
    let slow = move |payload: Payload| {
        noted.note(&payload);
        sleep(10 * MS)
    };
    let worker = builder(&store).handle_raw("click", RawOptions::default(), slow.clone());
    let running = worker.grace(Duration::from_secs(1)).cancel_grace(MS * 500).build().unwrap().start();
    sleep(Duration::from_secs(3)).await;
    running.stop().await.unwrap();
    let job = store.find(bundle).await.unwrap().unwrap();
    assert_eq!((job.state, job.reason, job.attempt), (State::Queued, Some(Reason::Interrupted), 0));
    let worker = builder(&store).handle_raw("click", RawOptions::default(), slow).build().unwrap();
    run_all(&store, worker).await.unwrap();
    assert_eq!((runs.all().len(), runs.sum()), (1_000, 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_ends_its_worker_costs_the_others_nothing() {
    let (store, runs) = (store(), Runs::default());
    raw(&store).list().push_many(numbers(50)).await.unwrap();
    let (kill, mut killed) = mpsc::unbounded_channel();
    let noted = runs.clone();
    let handler = move |payload: Payload| {
        let (payload, _) = noted.note(&payload);
        let kill = kill.clone();
        async move {
            if payload == "20" || payload == "30" {
                kill.send(()).unwrap();
                std::future::pending::<()>().await;
            }
        }
    };
    let mut deaths = 0;
    loop {
        let worker =
            builder(&store).handle_raw("click", RawOptions::default(), handler.clone()).build().unwrap();
        tokio::select! {
            biased;
            Some(()) = killed.recv() => deaths += 1,
            ended = run_all(&store, worker) => {
                ended.unwrap();
                break;
            }
        }
    }
    for n in numbers(50).filter(|n| n != "20" && n != "30") {
        assert!(runs.of(&n) >= 1, "{n} was not run");
    }
    left(&store).await;
    let kept = jobs(&store).await;
    let shown: Vec<_> = kept.iter().map(|job| (text(&job.payload), job.state, job.reason)).collect();
    assert_eq!(
        shown,
        [("20", State::Failed, Some(Reason::Poison)), ("30", State::Failed, Some(Reason::Poison))]
    );
    // Each once for the record at first, once alone in it where that was known only then, and as often alone as its
    // budget allows.
    assert!(deaths <= 11, "{deaths}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_payload_whose_job_was_not_answered_for_is_one_job() {
    let probe = Probe::quiet();
    let (store, runs) = (probe.store(), Runs::default());
    raw(&store).with(|job| job.max_attempts(1)).list().push_many(numbers(10)).await.unwrap();
    let mut lost = 0;
    probe.set(move |op| {
        lost += u32::from(op == Operation::Enqueue);
        if op == Operation::Enqueue && lost <= 3 { Fate::Lose } else { Fate::Pass }
    });
    let noted = runs.clone();
    let handler = move |payload: Payload| {
        let (payload, _) = noted.note(&payload);
        async move { if payload == "4" { Err("no") } else { Ok(()) } }
    };
    let worker = builder(&store).handle_raw("click", RawOptions::default(), handler).build().unwrap();
    run_all(&store, worker).await.unwrap();
    assert_eq!((jobs(&store).await.len(), runs.of("4"), runs.of("5")), (1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_no_bundle_fails_by_itself() {
    let store = store();
    let queue = store.queue("raw").unwrap();
    let job = leasehold_core::NewJob::dynamic("click[]", &1).unwrap();
    let id = queue.enqueue(job).await.unwrap();
    run_all(&store, noting(&store, &Runs::default()).build().unwrap()).await.unwrap();
    let job = store.find(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.reason, job.attempt), (State::Failed, Some(Reason::BadPayload), 1));
}

#[tokio::test(start_paused = true)]
async fn rules_about_kinds_hold_for_records_of_them_too() {
    let (store, runs) = (store(), Runs::default());
    raw(&store).list().push_many(numbers(3)).await.unwrap();
    let other = || async {};
    let worker = noting(&store, &runs).handle("other", other).except_kinds(["click"]).until_idle();
    worker.build().unwrap().run().await;
    assert_eq!(runs.sum(), 0);
    let worker = noting(&store, &runs).handle("other", other).only_kinds(["click"]).until_idle();
    worker.build().unwrap().run().await;
    assert_eq!(runs.sum(), 3);
}
