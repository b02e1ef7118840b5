use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use leasehold_core::backend::{Level, LogSource};
use leasehold_core::layer::Operation;
use leasehold_core::policy::BoxError;
use leasehold_core::testing::{Chaos, Faults, enqueued};
use leasehold_core::{
    ErrorKind, JobArgs, JobId, JobRecord, Limits, Payload, Progress, Queue, Reason, State, Store,
};

use leasehold_memory::Memory;

use crate::probe::{Fate, Probe};
use crate::worker::enqueue;
use crate::{Add, store};

async fn with_one_job() -> (Store, Queue) {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue(Add { a: 1, b: 2 }).await.unwrap();
    (store, queue)
}

async fn only(store: &Store) -> JobRecord {
    leasehold_core::testing::enqueued(store, "add").await.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn completes_fails_retries_and_releases() {
    let (store, queue) = with_one_job().await;
    let mut consumer = queue.consumer();

    consumer.next().await.unwrap().unwrap().release().await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt, job.reason), (State::Queued, 0, Some(Reason::Released)));

    consumer.next().await.unwrap().unwrap().retry(Duration::from_secs(5)).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt, job.reason), (State::Scheduled, 1, Some(Reason::RetryRequested)));
    assert!(consumer.next().await.unwrap().is_none());

    tokio::time::advance(Duration::from_secs(5)).await;
    consumer.next().await.unwrap().unwrap().fail("no such number").await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt, job.reason), (State::Scheduled, 2, Some(Reason::Error)));
    assert_eq!(job.last_failure().unwrap().message, "no such number");

    tokio::time::advance(Duration::from_secs(5)).await;
    let held = consumer.next().await.unwrap().unwrap();
    held.retry_in("more sums", Duration::ZERO).await.unwrap();
    assert!(consumer.next().await.unwrap().is_none());
    let mut consumer = store.queue("more sums").unwrap().consumer();

    consumer.next().await.unwrap().unwrap().complete(Some(Payload::json(&3).unwrap())).await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.result.unwrap().parse::<u64>().unwrap()), (State::Succeeded, 3));
}

/// Has somebody hold the next job who is never heard of again.
async fn lose_one(queue: &Queue) -> JobId {
    let mut consumer = queue.consumer().lease(Duration::from_secs(10));
    let held = consumer.next().await.unwrap().unwrap();
    let id = held.job().id;
    std::mem::forget(held);
    id
}

/// A lease of ten seconds, and the longest interval and back-off.
const LOST_BY: Duration = Duration::from_millis(10_000 + 6_000 + 1_000);

#[tokio::test(start_paused = true)]
async fn consumers_alone_take_back_what_was_lost() {
    let (store, queue) = with_one_job().await;
    let id = lose_one(&queue).await;
    let mut consumer = queue.consumer().poll(Duration::from_secs(1));
    let held =
        tokio::time::timeout(LOST_BY + Duration::from_secs(2), consumer.wait()).await.unwrap().unwrap();
    assert_eq!((held.job().id, held.job().attempt, held.job().crashes), (id, 2, 1));
    assert_eq!(held.job().last_failure().unwrap().reason, Reason::LeaseExpired);
    held.complete(None).await.unwrap();

    // While it has something else to do as well.
    queue.enqueue(Add { a: 1, b: 2 }).await.unwrap();
    let lost = lose_one(&queue).await;
    queue.enqueue(Add { a: 1, b: 3 }).await.unwrap();
    let held = consumer.next().await.unwrap().unwrap();
    let work = |_| async {
        tokio::time::sleep(LOST_BY).await;
        Ok::<_, BoxError>(None)
    };
    held.run(work).await.unwrap();
    let job = store.find(lost).await.unwrap().unwrap();
    assert_eq!((job.state, job.crashes), (State::Queued, 1));

    // And one that only looks whether there is something, and goes.
    let held = consumer.next().await.unwrap().unwrap();
    held.complete(None).await.unwrap();
    drop(consumer);
    queue.enqueue(Add { a: 1, b: 4 }).await.unwrap();
    let lost = lose_one(&queue).await;
    tokio::time::advance(LOST_BY).await;
    assert_eq!(store.find(lost).await.unwrap().unwrap().state, State::Running, "nobody is there to look");
    assert!(queue.consumer().next().await.unwrap().is_none());
    let job = store.find(lost).await.unwrap().unwrap();
    assert_eq!((job.state, job.crashes), (State::Scheduled, 1));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_takes_back_all_that_was_lost_within_one_interval() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue_all((0..1_200).map(|n| Add { a: n, b: 1 })).await.unwrap();
    let mut lost = queue.consumer().lease(Duration::from_secs(10)).prefetch(1_200);
    std::mem::forget(lost.next().await.unwrap().unwrap());
    std::mem::forget(lost);
    // Busy with another one all the while.
    let mut consumer = store.queue("other sums").unwrap().consumer();
    assert!(consumer.next().await.unwrap().is_none());
    tokio::time::sleep(LOST_BY).await;
    let running = queue.counts().await.unwrap().of(State::Running);
    assert_eq!(running, 0);
}

#[tokio::test(start_paused = true)]
async fn looking_for_lost_leases_costs_next_to_nothing() {
    let probe = Probe::quiet();
    let store = probe.store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue_all((0..100).map(|n| Add { a: n, b: 1 })).await.unwrap();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    probe.set(move |op| {
        counted.fetch_add(usize::from(op == Operation::Expired), Ordering::SeqCst);
        Fate::Pass
    });
    let mut consumers: Vec<_> = (0..10).map(|_| queue.consumer()).collect();
    for n in 0..100 {
        consumers[n % 10].next().await.unwrap().unwrap().complete(None).await.unwrap();
    }
    assert_eq!(looks.load(Ordering::SeqCst), 0, "while there is work");
    for consumer in &mut consumers {
        assert!(consumer.next().await.unwrap().is_none());
    }
    assert_eq!(looks.load(Ordering::SeqCst), 1, "one looks for all");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!((8..=21).contains(&looks.load(Ordering::SeqCst)), "{looks:?}");
    drop(consumers);
    let before = looks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(looks.load(Ordering::SeqCst), before, "nobody looks who is gone");
}

#[tokio::test(start_paused = true)]
async fn progress_renews_the_lease() {
    let (store, queue) = with_one_job().await;
    let mut held = queue.consumer().lease(Duration::from_secs(10)).next().await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(8)).await;
    let progress = Progress { done: 1, total: Some(2), message: "half".into(), cursor: None };
    assert!(!held.progress(progress.clone()).await.unwrap());
    let job = only(&store).await;
    assert_eq!(job.progress, Some(progress));
    assert_eq!(job.lease_until.unwrap().since(store.now().await.unwrap()), Duration::from_secs(10));
    store.cancel(job.id).await.unwrap();
    assert!(held.renew().await.unwrap());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_given_back_with_its_attempt() {
    let (store, queue) = with_one_job().await;
    queue.enqueue(Add { a: 3, b: 4 }).await.unwrap();
    let mut consumer = queue.consumer().prefetch(2);
    drop(consumer.next().await.unwrap().unwrap());
    consumer.close().await.unwrap();
    for job in leasehold_core::testing::enqueued(&store, "add").await.unwrap() {
        assert_eq!((job.state, job.attempt), (State::Queued, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_cannot_be_completed() {
    let (store, queue) = with_one_job().await;
    let held = queue.consumer().lease(Duration::from_secs(1)).next().await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    crate::worker::recover(&store).await;
    let error = held.complete(None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(only(&store).await.state, State::Scheduled);
}

#[tokio::test(start_paused = true)]
async fn a_scope_completes_and_fails_by_itself_and_keeps_the_lease() {
    let (store, queue) = with_one_job().await;
    let mut consumer = queue.consumer().lease(Duration::from_secs(3));
    let held = consumer.next().await.unwrap().unwrap();
    let slow = held.run(|job| async move {
        let sum: Add = job.payload.parse()?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        crate::worker::recover(queue.store()).await;
        Ok::<_, BoxError>(Some(Payload::json(&(sum.a + sum.b))?))
    });
    slow.await.unwrap();
    assert_eq!(only(&store).await.state, State::Succeeded);

    store.requeue(only(&store).await.id).await.unwrap();
    let held = consumer.next().await.unwrap().unwrap();
    held.run(|_| async { Err::<Option<Payload>, _>("broken") }).await.unwrap();
    assert_eq!(only(&store).await.reason, Some(Reason::Error));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_scope_fails_the_job_and_goes_on() {
    let (store, queue) = with_one_job().await;
    let held = queue.consumer().next().await.unwrap().unwrap();
    let work = held.run(|_| async { if true { panic!("out of beans") } else { Ok::<_, BoxError>(None) } });
    assert!(std::panic::AssertUnwindSafe(work).catch_unwind().await.is_err());
    assert_eq!(only(&store).await.reason, Some(Reason::Panic));
}

#[tokio::test(start_paused = true)]
async fn streams_jobs_as_they_come() {
    let (_store, queue) = with_one_job().await;
    let mut consumer = queue.consumer();
    let producer = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        queue.enqueue(Add { a: 3, b: 4 }).await.unwrap();
    };
    let consuming = consumer.stream().take(2).try_for_each(|held| held.complete(None));
    let (done, ()) = tokio::join!(consuming, producer);
    done.unwrap();
    assert_eq!(queue.counts().await.unwrap().of(State::Succeeded), 2);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_found_again() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    let mut consumer = store.queue("sums").unwrap().consumer();
    probe.set(|op| if op == Operation::Claim { Fate::Lose } else { Fate::Pass });
    consumer.next().await.unwrap_err();
    probe.set(|_| Fate::Pass);
    consumer.next().await.unwrap().expect("the job").complete(None).await.unwrap();

    enqueue(&store, 2, 0).await;
    probe.set(|op| if op == Operation::Claim { Fate::Lose } else { Fate::Pass });
    let _ = tokio::time::timeout(Duration::from_millis(5), consumer.next()).await;
    probe.set(|_| Fate::Pass);
    consumer.close().await.unwrap();
    assert_eq!(enqueued(&store, Add::KIND).await.unwrap()[1].state, State::Queued);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_given_back_is_given_back_later() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    let mut consumer = store.queue("sums").unwrap().consumer();
    drop(consumer.next().await.unwrap());
    probe.set(|op| if op == Operation::Settle { Fate::Refuse(ErrorKind::Unavailable) } else { Fate::Pass });
    consumer.next().await.unwrap_err();
    probe.set(|_| Fate::Pass);
    assert!(consumer.next().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_scope_goes_on_while_a_renewal_hangs_and_ends_before_the_lease() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    let mut consumer = store.queue("sums").unwrap().consumer().lease(Duration::from_secs(3));
    let held = consumer.next().await.unwrap().unwrap();
    let begun = tokio::time::Instant::now();
    probe.set(|op| if op == Operation::Renew { Fate::Hang } else { Fate::Pass });
    let beats = Arc::new(AtomicUsize::new(0));
    let counted = beats.clone();
    let error = held
        .run(|_| async move {
            for _ in 0..1_000 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, BoxError>(None)
        })
        .await
        .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?} {error}", begun.elapsed());
    assert!(beats.load(Ordering::SeqCst) >= 25, "{beats:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_in_a_consumer_is_not_handed_out() {
    let store = store();
    enqueue(&store, 1, 0).await;
    enqueue(&store, 2, 0).await;
    let mut consumer = store.queue("sums").unwrap().consumer().lease(Duration::from_secs(3)).prefetch(2);
    let first = consumer.next().await.unwrap().unwrap();
    first
        .run(|_| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok::<_, BoxError>(None)
        })
        .await
        .unwrap();
    crate::worker::recover(&store).await;
    match consumer.next().await.unwrap() {
        None => {}
        Some(held) => held.complete(None).await.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_not_answered_is_handed_in_again() {
    let chaos = Arc::new(Chaos::new(Arc::new(Memory::new()), Faults::default(), 7));
    let store = Store::with_limits(chaos.clone(), Limits::default());
    let queue = store.queue("sums").unwrap();
    queue.enqueue(Add { a: 1, b: 2 }).await.unwrap();
    let mut consumer = queue.consumer();
    let held = consumer.next().await.unwrap().unwrap();
    chaos.set(Faults { request_lost: 1.0, ..Faults::default() });
    let error = held.complete(Some(Payload::json(&3).unwrap())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    chaos.set(Faults::default());
    consumer.close().await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.result.unwrap().parse::<u64>().unwrap()), (State::Succeeded, 3));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_too_large_fails_the_job_for_good() {
    let (store, queue) = with_one_job().await;
    let mut consumer = queue.consumer();
    let held = consumer.next().await.unwrap().unwrap();
    let error = held.complete(Some(vec![0; 2 << 20].into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(consumer.next().await.unwrap().is_none());
    let job = only(&store).await;
    assert_eq!((job.state, job.last_failure().unwrap().class.as_str()), (State::Failed, "refused"));
}

async fn said(store: &Store) -> Vec<(Level, String)> {
    let job = only(store).await.id;
    let page = store.logs(LogSource::Job(job), 0, 1_000).await.unwrap();
    page.lines.into_iter().map(|line| (line.level, line.message)).collect()
}

fn done(done: u64) -> Progress {
    Progress { done, ..Progress::default() }
}

#[tokio::test(start_paused = true)]
async fn what_a_scope_says_is_seen_while_it_runs_and_its_last_words_too() {
    let (store, queue) = with_one_job().await;
    let held = queue.consumer().next().await.unwrap().unwrap();
    let seen = store.clone();
    held.run(|job| async move {
        for n in 1..=3 {
            job.progress(done(n));
            job.log(Level::Info, format!("{n}"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(only(&seen).await.progress, Some(done(3)));
        assert_eq!(said(&seen).await.len(), 3);
        job.log(Level::Warn, "bye");
        job.progress(done(4));
        Err::<Option<Payload>, _>("broken")
    })
    .await
    .unwrap();
    assert_eq!(
        (only(&store).await.reason, only(&store).await.progress),
        (Some(Reason::Error), Some(done(4)))
    );
    let texts = ["1", "2", "3"].map(|n| (Level::Info, n.to_owned())).into_iter();
    let wanted: Vec<_> = texts.chain([(Level::Warn, "bye".to_owned())]).collect();
    assert_eq!(said(&store).await, wanted);
}

#[tokio::test(start_paused = true)]
async fn of_too_many_lines_of_a_scope_the_oldest_go_and_none_comes_twice() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    let mut consumer = store.queue("sums").unwrap().consumer();
    let mut held = consumer.next().await.unwrap().unwrap();
    held.log(Level::Info, "first").await.unwrap();
    // The lines arrive, and nobody hears of it.
    probe.set(|op| if op == Operation::AppendLogs { Fate::Lose } else { Fate::Pass });
    let rule = probe.clone();
    held.run(|job| async move {
        job.log(Level::Info, "second");
        tokio::time::sleep(Duration::from_secs(20)).await;
        rule.set(|_| Fate::Pass);
        (0..1_500).for_each(|n| job.log(Level::Info, n.to_string()));
        Ok::<_, BoxError>(None)
    })
    .await
    .unwrap();
    let said = said(&probe.undisturbed()).await;
    assert_eq!((said.len(), said[0].1.as_str(), said[999].1.as_str()), (1_000, "500", "1499"));
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_cancelled_is_dropped_and_a_log_that_hangs_costs_no_lease() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    let mut consumer = store.queue("sums").unwrap().consumer().lease(Duration::from_secs(3));
    let held = consumer.next().await.unwrap().unwrap();
    probe.set(|op| if op == Operation::AppendLogs { Fate::Hang } else { Fate::Pass });
    let (other, calm) = (store.clone(), probe.clone());
    held.run(|job| async move {
        for n in 0..300 {
            job.log(Level::Info, n.to_string());
            tokio::time::sleep(Duration::from_millis(100)).await;
            crate::worker::recover(&calm.undisturbed()).await;
        }
        other.cancel(job.id).await.unwrap();
        std::future::pending::<Result<Option<Payload>, BoxError>>().await
    })
    .await
    .unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt), (State::Cancelled, 1));
}
