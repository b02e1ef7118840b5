//! Who takes from a root, takes from all queues that lie under it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::worker::{EndedBy, QueueChoice, State as Shared, WorkerBuilder};
use leasehold_core::{Attempt, NewJob, State, Store, Worker};
use tokio::time::{Instant, sleep};

use crate::probe::{Fate, Probe};
use crate::store;

type Ran = Arc<Mutex<Vec<String>>>;

async fn note(attempt: Attempt, ran: Shared<Ran>) {
    ran.lock().unwrap().push(attempt.job().queue.to_string());
}

fn taking(store: &Store, queues: &[&str]) -> (WorkerBuilder, Ran) {
    let ran = Ran::default();
    let named = queues.iter().fold(Worker::builder(store), |builder, queue| builder.queue(*queue));
    (named.state(ran.clone()).handle("work", note), ran)
}

fn told(ran: &Ran) -> Vec<String> {
    let mut ran = std::mem::take(&mut *ran.lock().unwrap());
    ran.sort();
    ran
}

async fn enqueue(store: &Store, queue: &str) {
    let job = NewJob::dynamic("work", queue).unwrap();
    store.queue(queue).unwrap().enqueue(job).await.unwrap();
}

/// Waits until so many ran, and tells how long that took.
async fn until(ran: &Ran, count: usize) -> Duration {
    let begun = Instant::now();
    while ran.lock().unwrap().len() < count {
        sleep(Duration::from_millis(1)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing runs");
    }
    begun.elapsed()
}

/// A store that counts how often it is asked for its queues.
fn counting() -> (Arc<AtomicUsize>, Probe) {
    let (asked, probe) = (Arc::new(AtomicUsize::new(0)), Probe::quiet());
    let counted = asked.clone();
    probe.set(move |op| {
        counted.fetch_add(usize::from(op == Operation::Queues), Ordering::SeqCst);
        Fate::Pass
    });
    (asked, probe)
}

#[tokio::test(start_paused = true)]
async fn a_root_means_itself_and_all_that_lies_under_it() {
    let store = store();
    for queue in ["main/", "main/a", "main/a/b", "main", "main_", "a/main/"] {
        enqueue(&store, queue).await;
    }
    let (builder, ran) = taking(&store, &["main/"]);
    let summary = builder.until_idle().build().unwrap().run().await;
    assert_eq!((summary.succeeded, summary.ended_by), (3, EndedBy::Idle));
    assert_eq!(told(&ran), ["main/", "main/a", "main/a/b"]);
    for left in ["main", "main_", "a/main/"] {
        assert_eq!(store.queue(left).unwrap().counts().await.unwrap().of(State::Queued), 1, "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_stands_for_one_queue_where_they_are_chosen_from() {
    let store = store();
    for queue in ["low/a", "high/a", "low/b", "high/b"] {
        enqueue(&store, queue).await;
    }
    let (builder, ran) = taking(&store, &["high/", "low/"]);
    let builder = builder.queue_choice(QueueChoice::Strict).concurrency(1).prefetch(0);
    builder.until_idle().build().unwrap().run().await;
    let ran = std::mem::take(&mut *ran.lock().unwrap());
    assert_eq!(ran, ["high/a", "high/b", "low/a", "low/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_never_there_is_found_within_a_second_without_any_event() {
    let probe = Probe::new(|op| if op == Operation::Watch { Fate::Hang } else { Fate::Pass });
    let (store, elsewhere) = (probe.store(), probe.undisturbed());
    let (builder, ran) = taking(&store, &["main/"]);
    let worker = builder.poll(Duration::from_secs(60)).build().unwrap().start();
    for n in 0..5 {
        sleep(Duration::from_millis(2_718)).await;
        enqueue(&elsewhere, &format!("main/{n}/of it")).await;
        let took = until(&ran, n + 1).await;
        assert!(took <= Duration::from_millis(1_010), "{took:?}");
    }
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_queue_that_was_never_there_is_enough() {
    let probe = Probe::quiet();
    let (store, elsewhere) = (probe.store(), probe.undisturbed());
    let (builder, ran) = taking(&store, &["main/"]);
    let worker = builder.poll(Duration::from_secs(60)).build().unwrap().start();
    sleep(Duration::from_millis(10)).await;
    enqueue(&elsewhere, "main/new").await;
    let took = until(&ran, 1).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_is_asked_for_its_queues_once_a_second_by_all_its_workers() {
    let (asked, probe) = counting();
    let store = probe.store();
    let workers: Vec<_> = (0..4)
        .map(|_| taking(&store, &["main/"]).0.poll(Duration::from_millis(50)).build().unwrap().start())
        .collect();
    for _ in 0..300 {
        enqueue(&store, "main/a").await;
        sleep(Duration::from_millis(100)).await;
    }
    let asked = asked.load(Ordering::SeqCst);
    assert!((30..=35).contains(&asked), "in 30 s, and once at each start: {asked}");
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_is_asked_for_its_queues_rarely_where_none_is_a_root_nor_has_a_rate() {
    let (asked, probe) = counting();
    let store = probe.store();
    let workers: Vec<_> = (0..4).map(|_| taking(&store, &["main/a"]).0.build().unwrap().start()).collect();
    sleep(Duration::from_secs(60)).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!((10..=13).contains(&asked), "in 60 s, by four workers: {asked}");
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_root_shuts_what_lies_under_it_until_it_is_resumed() {
    let store = store();
    let (root, a) = (store.queue("main/").unwrap(), store.queue("main/a").unwrap());
    root.pause("ann", "to look").await.unwrap();
    a.pause("ann", "to look").await.unwrap();
    for queue in ["main/", "main/a", "main/b"] {
        enqueue(&store, queue).await;
    }
    let (builder, ran) = taking(&store, &["main/"]);
    let worker = builder.build().unwrap().start();
    let (builder, of_b) = taking(&store, &["main/b/c"]);
    let by_name = builder.poll(Duration::from_secs(60)).build().unwrap().start();
    enqueue(&store, "main/b/c").await;
    sleep(Duration::from_secs(5)).await;
    assert!(told(&ran).is_empty() && told(&of_b).is_empty());
    root.resume().await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!([told(&ran), told(&of_b)].concat().iter().filter(|queue| *queue == "main/b/c").count(), 1);
    assert_eq!(a.counts().await.unwrap().of(State::Queued), 1);
    a.resume().await.unwrap();
    assert!(until(&ran, 1).await < Duration::from_millis(1_010));
    assert_eq!(told(&ran), ["main/a"]);
    worker.stop().await.unwrap();
    by_name.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_name_its_queues_gives_jobs_of_those_that_are_known() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, "main/a").await;
    let (builder, ran) = taking(&store, &["main/"]);
    let worker = builder.build().unwrap().start();
    until(&ran, 1).await;
    probe.set(|op| {
        if op == Operation::Queues { Fate::Refuse(leasehold_core::ErrorKind::Denied) } else { Fate::Pass }
    });
    sleep(Duration::from_secs(5)).await;
    enqueue(&probe.undisturbed(), "main/a").await;
    assert!(until(&ran, 2).await < Duration::from_secs(2));
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_takes_from_a_root_too() {
    let probe = Probe::quiet();
    let (store, elsewhere) = (probe.store(), probe.undisturbed());
    let mut consumer = store.queue("main/").unwrap().consumer();
    assert!(consumer.next().await.unwrap().is_none());
    // What this very handle enqueues is known at once.
    enqueue(&store, "main/mine").await;
    consumer.next().await.unwrap().expect("one is due").complete(None).await.unwrap();
    let waiting = tokio::spawn(async move {
        let held = consumer.wait().await.unwrap();
        let queue = held.job().queue.to_string();
        held.complete(None).await.unwrap();
        queue
    });
    sleep(Duration::from_secs(3)).await;
    enqueue(&elsewhere, "main/theirs").await;
    let found = tokio::time::timeout(Duration::from_millis(1_010), waiting).await;
    assert_eq!(found.unwrap().unwrap(), "main/theirs");
}
