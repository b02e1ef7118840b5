//! Workers on a server where others stand in the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold_core::worker::{EndedBy, State as Shared};
use leasehold_core::{Attempt, Store, UniqueScope, Worker};
use leasehold_postgres::Postgres;
use tokio::time::sleep;

use crate::bench::{add, find, job, jobs, run, store, until};

fn worker(store: &Postgres) -> leasehold_core::worker::WorkerBuilder {
    Worker::builder(&Store::new(store.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_caller_has_locked_costs_no_other_job_its_lease() {
    let (store, schema, mut other) = store().await;
    let key = "key".parse().expect("a key");
    let period = UniqueScope::For(Duration::from_millis(1));
    let added = add(&store, vec![job().unique(key, period), job(), job()]).await;
    let begun = Arc::new(AtomicUsize::new(0));
    async fn long(attempt: Attempt, begun: Shared<Arc<AtomicUsize>>) {
        begun.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            () = attempt.cancelled() => {}
            () = sleep(Duration::from_secs(12)) => {}
        }
    }
    let worker = worker(&store).lease(Duration::from_secs(9)).state(begun.clone()).handle("work", long);
    let worker = worker.build().expect("a worker").start();
    until("all run", async || begun.load(Ordering::SeqCst) == 3).await;
    // As an enqueue in a caller's transaction that takes over the key does.
    run(&mut other, format!("BEGIN; UPDATE {schema}.jobs SET unique_key = NULL WHERE id = '{}'", added[0]))
        .await;
    until("the others are done", async || {
        let mut ended = 0;
        for id in &added[1..] {
            ended += usize::from(find(&store, *id).await.state.is_terminal());
        }
        ended == 2
    })
    .await;
    run(&mut other, "ROLLBACK").await;
    for id in &added[1..] {
        assert_eq!(find(&store, *id).await.attempt, 1);
    }
    let summary = worker.stop().await.expect("it ended");
    assert!(summary.lost <= 1, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_caller_has_locked_keeps_no_other_job_from_being_settled() {
    let (store, schema, mut other) = store().await;
    let added = add(&store, jobs(2)).await;
    run(&mut other, "BEGIN").await;
    let begun = Arc::new(AtomicUsize::new(0));
    async fn brief(begun: Shared<Arc<AtomicUsize>>) {
        begun.fetch_add(1, Ordering::SeqCst);
        while begun.load(Ordering::SeqCst) < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let worker = worker(&store).state(begun.clone()).handle("work", brief).build().expect("a worker").start();
    until("both run", async || begun.load(Ordering::SeqCst) == 2).await;
    run(&mut other, format!("SELECT FROM {schema}.jobs WHERE id = '{}' FOR UPDATE", added[0])).await;
    begun.fetch_add(1, Ordering::SeqCst);
    until("the other is done", async || find(&store, added[1]).await.state.is_terminal()).await;
    run(&mut other, "ROLLBACK").await;
    worker.stop().await.expect("it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_set_aside_ends_no_worker_that_runs_until_it_is_idle() {
    let (store, schema, mut other) = store().await;
    let added = add(&store, jobs(3)).await;
    run(&mut other, format!("UPDATE {schema}.jobs SET options = '{{' WHERE id = '{}'", added[0])).await;
    let worker = worker(&store).concurrency(1).until_idle().handle("work", || async {});
    let summary = worker.build().expect("a worker").run().await;
    assert_eq!((summary.succeeded, summary.ended_by), (2, EndedBy::Idle));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_set_aside_hides_no_job_from_who_takes_them_by_hand() {
    let (store, schema, mut other) = store().await;
    let added = add(&store, jobs(2)).await;
    run(&mut other, format!("UPDATE {schema}.jobs SET options = '{{' WHERE id = '{}'", added[0])).await;
    let mut consumer = Store::new(store).queue("default").expect("a queue").consumer();
    let held = consumer.next().await.expect("an answer").expect("a job is due");
    assert_eq!(held.job().id, added[1]);
}
