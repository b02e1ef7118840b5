//! Leases that are renewed, and handlers that end before theirs does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::testing::{enqueued, run_all};
use leasehold_core::worker::{Args, State as Shared};
use leasehold_core::{Attempt, JobArgs, NewJob, Progress};
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

/// Notes when a handler was dropped.
struct Running(Arc<Mutex<Option<Instant>>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().get_or_insert(Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn progress_that_is_refused_costs_no_lease() {
    let store = store();
    for a in 0..3 {
        enqueue(&store, a, 0).await;
    }
    async fn h(Args(sum): Args<Add>, attempt: Attempt) {
        if sum.a == 0 {
            attempt.progress(Progress { message: "x".repeat(5_000), ..Progress::default() });
        } else {
            attempt.progress(Progress { done: 7, ..Progress::default() });
        }
        sleep(s(60)).await;
    }
    let worker = builder(&store).lease(s(10)).handle(Add::KIND, h).build().unwrap();
    let summary = run_all(&store, worker).await.unwrap();
    assert_eq!((summary.succeeded, summary.lost), (3, 0));
    let done: u64 = enqueued(&store, Add::KIND)
        .await
        .unwrap()
        .iter()
        .filter_map(|j| j.progress.clone())
        .map(|p| p.done)
        .sum();
    assert_eq!(done, 14);
}

#[tokio::test(start_paused = true)]
async fn a_lease_lost_while_its_handler_may_still_end_stops_it_at_once() {
    let probe = Probe::quiet();
    let store = probe.store();
    let job = enqueue(&store, 1, 0).await;
    let ended = Arc::new(Mutex::new(None));
    async fn h(ended: Shared<Arc<Mutex<Option<Instant>>>>) {
        let _running = Running(Arc::clone(&ended.0));
        std::future::pending::<()>().await;
    }
    let worker = builder(&store).lease(s(3)).cancel_grace(s(60)).state(ended.clone()).handle(Add::KIND, h);
    let worker = worker.build().unwrap().start();
    sleep(ms(100)).await;
    store.cancel(job).await.unwrap();
    sleep(s(2)).await;
    let silent = Instant::now();
    probe.set(|op| if op == Operation::Renew { Fate::Hang } else { Fate::Pass });
    sleep(s(40)).await;
    let at: Instant = ended.lock().unwrap().expect("it was stopped");
    assert!(at.duration_since(silent) < s(3), "{:?}", at.duration_since(silent));
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_holds_up_no_other_fence() {
    let probe = Probe::quiet();
    let store = probe.store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue(Add { a: 0, b: 0 }).await.unwrap();
    let ended = Arc::new(Mutex::new(None));
    async fn h(Args(sum): Args<Add>, ended: Shared<Arc<Mutex<Option<Instant>>>>) {
        let _running = (sum.a == 1).then(|| Running(Arc::clone(&ended.0)));
        std::future::pending::<()>().await;
    }
    let worker =
        builder(&store).lease(s(30)).state(ended.clone()).handle(Add::KIND, h).build().unwrap().start();
    sleep(ms(9_900)).await;
    probe.set(|op| if op == Operation::Renew { Fate::Hang } else { Fate::Pass });
    sleep(ms(200)).await;
    // the long lease's renewal hangs now.
    let claimed = Instant::now();
    queue.enqueue(NewJob::of(&Add { a: 1, b: 0 }).unwrap().lease(s(1))).await.unwrap();
    sleep(s(6)).await;
    let at: Instant = ended.lock().unwrap().expect("it was stopped");
    assert!(at.duration_since(claimed) < s(1), "{:?}", at.duration_since(claimed));
    worker.stopper().interrupt();
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_leaves_time_for_another() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    async fn h() {
        sleep(s(20)).await;
    }
    for lease in [ms(100), s(3), s(30)] {
        let mut seen = 0;
        probe.set(move |op| {
            if op == Operation::Renew {
                seen += 1;
                return if seen % 2 == 1 { Fate::Hang } else { Fate::Pass };
            }
            Fate::Pass
        });
        let worker = builder(&store).lease(lease).handle(Add::KIND, h).until_idle().build().unwrap();
        let summary = worker.run().await;
        assert_eq!((summary.succeeded, summary.lost), (1, 0), "{lease:?}");
        enqueue(&store, 1, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_handler_begins_when_the_claim_took_longer_than_its_lease() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    probe.set(|op| match op {
        Operation::Claim => Fate::Late(ms(3_000)),
        Operation::Renew => Fate::Hang,
        _ => Fate::Pass,
    });
    let runs = Arc::new(AtomicUsize::new(0));
    async fn h(runs: Shared<Arc<AtomicUsize>>) {
        runs.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }
    let worker =
        builder(&store).lease(s(1)).state(runs.clone()).handle(Add::KIND, h).build().unwrap().start();
    sleep(ms(4_000)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    worker.stopper().interrupt();
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_settlement_is_not_answered_is_not_renewed_in_a_loop() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    let (mut settled, renewals) = (false, Arc::new(AtomicUsize::new(0)));
    let counted = renewals.clone();
    probe.set(move |operation| match operation {
        Operation::Settle if !std::mem::replace(&mut settled, true) => Fate::Mute,
        Operation::Renew => {
            assert!(counted.fetch_add(1, Ordering::SeqCst) < 100, "renewed for ever");
            Fate::Pass
        }
        _ => Fate::Pass,
    });
    let worker = builder(&store).lease(s(1)).handle(Add::KIND, add).until_idle().build().unwrap();
    let summary = worker.run().await;
    assert_eq!((summary.succeeded, summary.lost), (1, 0));
    assert!(renewals.load(Ordering::SeqCst) < 3);
}
