//! Rates: of a program's own, and of queues. Never more than the number in any span of the store's clock, and little less.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::backend::{Prune, QueueSettings, Registers, Space};
use leasehold_core::client::Admission;
use leasehold_core::layer::Operation;
use leasehold_core::policy::Rate;
use leasehold_core::worker::{QueueChoice, State as Shared};
use leasehold_core::{Deadline, ErrorKind, JobArgs, State, Store, Timestamp};
use tokio::time::{Instant, sleep};

use crate::probe::{Fate, Probe};
use crate::worker::{builder, enqueue};
use crate::{Add, store};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The most of these moments within any span of this length.
fn most_within(span: Duration, moments: &[Timestamp]) -> usize {
    let mut sorted = moments.to_vec();
    sorted.sort_unstable();
    let from = |i: usize| sorted[i..].iter().take_while(|at| at.since(sorted[i]) < span).count();
    (0..sorted.len()).map(from).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn tells_how_many_are_left_and_when_there_is_room_again() {
    let store = store();
    let ask = async |key: &str| store.rate_limit(key, 3, s(32)).await.unwrap();
    for left in [3, 2, 1] {
        assert_eq!(ask("ann").await, Admission::Granted { left });
        sleep(s(1)).await;
    }
    let Admission::Refused { after } = ask("ann").await else { panic!("a fourth") };
    assert_eq!(after, s(32 + 1 - 3), "the span, and a 32nd of it");
    assert!(ask("bob").await.is_granted(), "another key");
    assert!(store.rate_limit("ann", 3, s(33)).await.unwrap().is_granted(), "another span");
    sleep(after - ms(1)).await;
    assert!(!ask("ann").await.is_granted());
    sleep(ms(1)).await;
    assert_eq!(ask("ann").await, Admission::Granted { left: 1 });
    sleep(s(100)).await;
    assert_eq!(ask("ann").await, Admission::Granted { left: 3 });
}

#[tokio::test(start_paused = true)]
async fn never_lets_more_through_than_its_number_in_any_span() {
    for (limit, per) in [(1, ms(500)), (7, s(1)), (300, s(2))] {
        let probe = Probe::new(|operation| match operation {
            Operation::Registers | Operation::PutRegister => Fate::Late(ms(fastrand::u64(0..8))),
            _ => Fate::Pass,
        });
        let (clock, done) = (probe.undisturbed(), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, clock, done) = (probe.store(), clock.clone(), done.clone());
            tasks.spawn(async move {
                let begun = Instant::now();
                while begun.elapsed() < per * 12 {
                    match store.rate_limit("key", limit, per).await {
                        Ok(Admission::Granted { .. }) => {
                            let now = clock.now().await.unwrap();
                            done.lock().unwrap().push(now);
                        }
                        Ok(Admission::Refused { after }) => sleep(after).await,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    }
                }
            });
        }
        tasks.join_all().await;
        let done = done.lock().unwrap().clone();
        assert!(most_within(per, &done) <= limit as usize, "{} in {per:?}", most_within(per, &done));
        let least = if limit == 300 { 300 } else { limit as usize * 5 };
        assert!(done.len() >= least, "{} of {limit} per {per:?} in 12 spans", done.len());
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_held_up_after_asking_does_not_act_on_it() {
    let held_up = Arc::new(AtomicU32::new(0));
    let count = held_up.clone();
    let probe = Probe::new(move |operation| {
        let is_first = operation == Operation::PutRegister && count.fetch_add(1, Ordering::SeqCst) == 0;
        if is_first { Fate::Late(s(2)) } else { Fate::Pass }
    });
    let (store, begun) = (probe.store(), Instant::now());
    assert_eq!(store.rate_limit("key", 5, s(1)).await.unwrap(), Admission::Granted { left: 5 });
    assert!(begun.elapsed() >= s(2));
    assert_eq!(held_up.load(Ordering::SeqCst), 2, "it asked again");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_used_is_forgotten() {
    let store = store();
    for n in 0..50 {
        store.rate_limit(&format!("customer {n}"), 3, s(1)).await.unwrap();
    }
    let there = async || {
        let page = store.backend().registers(Deadline::default(), Registers::all(Space::Rate, 99)).await;
        page.unwrap().registers.len()
    };
    assert_eq!(there().await, 50);
    sleep(s(2)).await;
    let prune = Prune { limit: 100, workers_after: s(60) };
    assert_eq!(store.backend().prune(Deadline::default(), prune).await.unwrap().registers, 50);
    assert_eq!(there().await, 0);
}

#[tokio::test(start_paused = true)]
async fn refuses_rates_that_make_no_sense() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    for (limit, per) in [(0, s(1)), (1, Duration::ZERO), (1, Duration::MAX)] {
        let refused = store.rate_limit("key", limit, per).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        let refused = queue.set_rate(Some(Rate::new(limit, per))).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
    for key in ["", "a\nb", &"x".repeat(300)] {
        assert_eq!(store.rate_limit(key, 1, s(1)).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// A store, and the moments at which jobs of `sums` began.
async fn rated(limit: u32, per: Duration) -> (Probe, Store, Began) {
    let probe = Probe::quiet();
    let store = probe.undisturbed();
    store.queue("sums").unwrap().set_rate(Some(Rate::new(limit, per))).await.unwrap();
    let began = Began { store: store.clone(), at: Arc::default() };
    (probe, store, began)
}

#[derive(Clone)]
struct Began {
    store: Store,
    at: Arc<Mutex<Vec<Timestamp>>>,
}

impl Began {
    fn at(&self) -> Vec<Timestamp> {
        self.at.lock().unwrap().clone()
    }
}

async fn note(began: Shared<Began>) {
    let now = began.store.now().await.unwrap();
    began.at.lock().unwrap().push(now);
}

#[tokio::test(start_paused = true)]
async fn workers_keep_the_rate_of_a_queue_together_and_lose_no_attempt() {
    let (_, store, began) = rated(10, s(1)).await;
    for n in 0..100 {
        enqueue(&store, n, 0).await;
    }
    let worker = || builder(&store).state(began.clone()).handle(Add::KIND, note).build().unwrap().start();
    let workers = [worker(), worker(), worker()];
    let begun = Instant::now();
    let queue = store.queue("sums").unwrap();
    while queue.counts().await.unwrap().of(State::Succeeded) < 100 {
        sleep(ms(100)).await;
        assert!(begun.elapsed() < s(30), "{:?}", queue.counts().await);
    }
    let at = began.at();
    assert_eq!((at.len(), most_within(s(1), &at)), (100, 10));
    assert!((s(9)..s(14)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let jobs = leasehold_core::testing::enqueued(&store, Add::KIND).await.unwrap();
    assert!(jobs.iter().all(|job| job.attempt == 1 && job.history.is_empty()));
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_over_its_rate_holds_up_no_other_and_makes_nobody_spin() {
    for choice in [QueueChoice::Merged, QueueChoice::Strict, QueueChoice::Parallel] {
        let (probe, store, began) = rated(1, s(60)).await;
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        probe.set(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fate::Pass
        });
        for n in 0..5 {
            enqueue(&store, n, 0).await;
        }
        let other = store.queue("other").unwrap();
        other.enqueue_all((0..500).map(|n| Add { a: n, b: 1 })).await.unwrap();
        let worker = builder(&probe.store()).queue("other").queue_choice(choice).concurrency(4);
        let worker = worker.state(began.clone()).handle(Add::KIND, note).build().unwrap().start();
        sleep(s(10)).await;
        assert_eq!(other.counts().await.unwrap().of(State::Succeeded), 500);
        assert_eq!(store.queue("sums").unwrap().counts().await.unwrap().of(State::Succeeded), 1);
        calls.store(0, Ordering::SeqCst);
        sleep(s(20)).await;
        let calls = calls.load(Ordering::SeqCst);
        assert!(calls < 150, "{calls} calls in twenty seconds in which there was nothing to do");
        sleep(s(40)).await;
        assert_eq!(store.queue("sums").unwrap().counts().await.unwrap().of(State::Succeeded), 2);
        worker.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_uses_a_rate_whose_span_is_shorter_than_its_poll() {
    let (_, store, began) = rated(5, ms(100)).await;
    for n in 0..200 {
        enqueue(&store, n, 0).await;
    }
    let worker = builder(&store).poll(s(60)).state(began.clone()).handle(Add::KIND, note);
    let worker = worker.build().unwrap().start();
    let begun = Instant::now();
    while began.at().len() < 200 {
        sleep(ms(10)).await;
        assert!(begun.elapsed() < s(8), "{} began", began.at().len());
    }
    assert_eq!(most_within(ms(100), &began.at()), 5);
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_works_until_idle_waits_for_the_rate() {
    let (_, store, began) = rated(2, s(5)).await;
    for n in 0..6 {
        enqueue(&store, n, 0).await;
    }
    let worker = builder(&store).state(began.clone()).handle(Add::KIND, note).until_idle().build().unwrap();
    let summary = worker.run().await;
    assert_eq!((summary.succeeded, most_within(s(5), &began.at())), (6, 2));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_had_leave_for_makes_the_queue_slower_once_and_never_faster() {
    let (probe, store, began) = rated(4, s(10)).await;
    for n in 0..40 {
        enqueue(&store, n, 0).await;
    }
    // Its claim arrives and nobody hears of it again: as of a worker that died there.
    probe.set(|operation| if operation == Operation::Claim { Fate::Mute } else { Fate::Pass });
    let dying = builder(&probe.store()).state(began.clone()).handle(Add::KIND, note).build().unwrap().start();
    sleep(ms(100)).await;
    probe.set(|_| Fate::Hang);
    let running = store.queue("sums").unwrap().counts().await.unwrap().of(State::Running);
    assert_eq!(running, 4, "what it was given counts");
    let claimed_at = store.now().await.unwrap();
    let worker = builder(&store).state(began.clone()).handle(Add::KIND, note).build().unwrap().start();
    sleep(s(10)).await;
    assert_eq!(began.at().len(), 0, "what was reserved and not told of counts as used as late as it may be");
    sleep(s(18)).await;
    assert_eq!(began.at().len(), 4);
    assert!(began.at()[0].since(claimed_at) < s(26), "three deadlines of a claim, and a span");
    sleep(s(60)).await;
    assert!(most_within(s(10), &began.at()) <= 4);
    worker.stop().await.unwrap();
    drop(dying);
}

#[tokio::test(start_paused = true)]
async fn consumers_keep_the_rate_and_give_back_what_they_do_not_use() {
    let (_, store, _) = rated(3, s(10)).await;
    let queue = store.queue("sums").unwrap();
    let mut idle = queue.consumer().prefetch(3);
    assert!(idle.next().await.unwrap().is_none(), "nothing waits yet");
    for n in 0..5 {
        enqueue(&store, n, 0).await;
    }
    let mut consumer = queue.consumer();
    for _ in 0..3 {
        consumer.next().await.unwrap().expect("within the rate").complete(None).await.unwrap();
    }
    assert!(consumer.next().await.unwrap().is_none());
    assert!(idle.next().await.unwrap().is_none());
    let begun = Instant::now();
    consumer.wait().await.unwrap().complete(None).await.unwrap();
    assert!((s(9)..=s(11)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let open = queue.settings().await.unwrap();
    assert_eq!(open.rate, Some(Rate::new(3, s(10))));
    queue.pause("ann", "lunch").await.unwrap();
    queue.resume().await.unwrap();
    assert_eq!(queue.settings().await.unwrap(), open, "a pause leaves the rate alone");
    queue.set(QueueSettings::default()).await.unwrap();
    assert_eq!(queue.settings().await.unwrap().rate, None);
}

#[tokio::test(start_paused = true)]
async fn workers_hear_of_a_rate_and_of_its_end() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    let began = Began { store: store.clone(), at: Arc::default() };
    let worker = builder(&store).state(began.clone()).handle(Add::KIND, note).build().unwrap().start();
    enqueue(&store, 0, 0).await;
    sleep(s(1)).await;
    assert_eq!(began.at().len(), 1);
    queue.set_rate(Some(Rate::new(1, s(100)))).await.unwrap();
    for n in 0..5 {
        enqueue(&store, n, 0).await;
    }
    sleep(s(50)).await;
    assert_eq!(began.at().len(), 2, "the rate is kept from when it was set");
    queue.set_rate(None).await.unwrap();
    sleep(s(2)).await;
    assert_eq!(began.at().len(), 6);
    worker.stop().await.unwrap();
}
