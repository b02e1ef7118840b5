//! What makes a worker look for jobs, and what must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::{ErrorKind, JobArgs, State};
use tokio::time::{Instant, sleep};

use crate::probe::{Fate, Probe};
use crate::worker::{add, builder, enqueue};
use crate::{Add, store};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_stays_free_is_filled_by_the_next_job() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    async fn h() {
        std::future::pending::<()>().await;
    }
    let worker = builder(&store).handle(Add::KIND, h).build().unwrap().start();
    for n in 0..9 {
        queue.enqueue(Add { a: n, b: 0 }).await.unwrap();
    }
    sleep(s(5)).await;
    for n in 0..2 {
        queue.enqueue(Add { a: n, b: 1 }).await.unwrap();
    }
    sleep(s(5)).await;
    queue.enqueue(Add { a: 0, b: 2 }).await.unwrap();
    sleep(s(30)).await;
    assert_eq!(queue.counts().await.unwrap().of(State::Running), 12);
    worker.stopper().interrupt();
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_opened_delay_nothing() {
    let probe = Probe::new(|op| if op == Operation::Watch { Fate::Hang } else { Fate::Pass });
    let store = probe.store();
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap().start();
    sleep(s(20)).await;
    for _ in 0..10 {
        let job = enqueue(&store, 1, 1).await;
        let begun = Instant::now();
        while !store.find(job).await.unwrap().unwrap().state.is_terminal() {
            sleep(ms(10)).await;
        }
        assert!(begun.elapsed() < ms(1_300), "{:?}", begun.elapsed());
        sleep(ms(700)).await;
    }
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn old_events_cause_no_empty_claims() {
    let claims = Arc::new(AtomicUsize::new(0));
    let probe = Probe::quiet();
    let store = probe.store();
    let queue = store.queue("sums").unwrap();
    let worker = builder(&store).concurrency(1).handle(Add::KIND, || async { sleep(ms(200)).await });
    let worker = worker.build().unwrap().start();
    sleep(s(1)).await;
    let counted = claims.clone();
    probe.set(move |op| {
        if op == Operation::Claim {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Fate::Pass
    });
    for a in 0..100 {
        queue.enqueue(Add { a, b: 0 }).await.unwrap();
    }
    sleep(s(30)).await;
    assert_eq!(queue.counts().await.unwrap().of(State::Succeeded), 100);
    let claims = claims.load(Ordering::SeqCst);
    assert!(claims < 150, "{claims}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn claims_that_fail_are_not_hurried_by_events() {
    let claims = Arc::new(AtomicUsize::new(0));
    let counted = claims.clone();
    let probe = Probe::new(move |op| {
        if op == Operation::Claim {
            counted.fetch_add(1, Ordering::SeqCst);
            return Fate::Refuse(ErrorKind::Denied);
        }
        Fate::Pass
    });
    let store = probe.store();
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap().start();
    for a in 0..1_000 {
        enqueue(&store, a, 0).await;
        sleep(ms(10)).await;
    }
    let claims = claims.load(Ordering::SeqCst);
    assert!(claims < 30, "{claims}");
    worker.stop().await.unwrap();
}
