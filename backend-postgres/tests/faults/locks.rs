//! What others hold, and what they do at the same moment.

use std::time::Duration;

use leasehold_core::backend::{Answer, Verdict};
use leasehold_core::{Backend, Deadline, ErrorKind, Reason, State, UniqueScope};

use crate::bench::{
    SERVER, SUCCEED, add, claim, connection, find, ids, job, jobs, number, run, settle, settling, soon,
    store, until,
};

/// How many of our sessions wait for a lock.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_an_idle_transaction_holds_are_passed_over() {
    let (store, schema, mut other) = store().await;
    let ids_of_all = add(&store, jobs(5)).await;
    run(&mut other, format!("BEGIN; SELECT FROM {schema}.jobs WHERE id = '{}' FOR UPDATE", ids_of_all[0]))
        .await;
    assert_eq!(ids(&claim(&store, 5).await.jobs), ids_of_all[1..]);
    run(&mut other, "ROLLBACK").await;
    assert_eq!(ids(&claim(&store, 5).await.jobs), ids_of_all[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_keeps_is_waited_for_until_the_deadline() {
    let (store, schema, mut other) = store().await;
    add(&store, jobs(1)).await;
    let leases = claim(&store, 1).await.jobs;
    run(&mut other, format!("BEGIN; UPDATE {schema}.jobs SET lease = 7")).await;
    let late = store.settle(Deadline::after(Duration::from_millis(300)), settling(&leases, &SUCCEED)).await;
    assert_eq!(late.expect_err("no answer").kind(), ErrorKind::Unknown);
    // What was given up is not left behind: the server finds that nobody waits for the answer.
    until("nobody waits", async || number(&mut other, format!("{WAITING}{schema}%'")).await == 0).await;
    run(&mut other, "ROLLBACK").await;
    assert_eq!(settle(&store, &leases, &SUCCEED).await, [Answer::Applied]);
    assert_eq!(find(&store, leases[0].job.id).await.state, State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_broken_and_the_call_made_again() {
    let (store, schema, mut other) = store().await;
    add(&store, jobs(2)).await;
    let leases = claim(&store, 2).await.jobs;
    let mut sorted = ids(&leases);
    sorted.sort_unstable();
    // Our session is the one that gives way: it looks for deadlocks sooner.
    run(&mut other, "SET deadlock_timeout = '30s'").await;
    run(&mut other, format!("BEGIN; UPDATE {schema}.jobs SET lease = 7 WHERE id = '{}'", sorted[1])).await;
    let settling = {
        let (store, leases) = (store.clone(), leases.clone());
        tokio::spawn(async move { settle(&store, &leases, &SUCCEED).await })
    };
    let mut third = connection(SERVER.url()).await;
    until("it waits", async || number(&mut third, format!("{WAITING}{schema}%'")).await == 1).await;
    run(&mut other, format!("UPDATE {schema}.jobs SET lease = 7 WHERE id = '{}'; COMMIT", sorted[0])).await;
    assert_eq!(settling.await.expect("answers"), [Answer::Applied; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_cancelled_is_unavailable_and_changed_nothing() {
    let (store, schema, mut other) = store().await;
    add(&store, jobs(1)).await;
    let leases = claim(&store, 1).await.jobs;
    run(&mut other, format!("BEGIN; UPDATE {schema}.jobs SET lease = 7")).await;
    for how in ["pg_cancel_backend", "pg_terminate_backend"] {
        let calling = {
            let (store, settle) = (store.clone(), settling(&leases, &SUCCEED));
            tokio::spawn(async move { store.settle(soon(), settle).await })
        };
        until("it waits", async || number(&mut other, format!("{WAITING}{schema}%'")).await == 1).await;
        let end = format!(
            "SELECT {how}(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%'"
        );
        run(&mut other, end).await;
        let error = calling.await.expect("a call").expect_err("cancelled");
        assert!(error.is_transient(), "{error:?}");
    }
    run(&mut other, "ROLLBACK").await;
    assert_eq!(settle(&store, &leases, &SUCCEED).await, [Answer::Applied]);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_batches_with_the_same_keys_in_another_order_all_get_in() {
    let (store, ..) = store().await;
    let keyed =
        |n: usize| job().unique(format!("key-{n}").parse().expect("a key"), UniqueScope::UntilFinished);
    for _ in 0..10 {
        let calls = (0..4).map(|way| {
            let batch: Vec<_> = (0..20).map(|n| keyed(if way % 2 == 0 { n } else { 19 - n })).collect();
            let store = store.clone();
            tokio::spawn(async move {
                store.enqueue(soon(), leasehold_core::backend::Enqueue { jobs: batch }).await
            })
        });
        let mut created = 0;
        for call in calls.collect::<Vec<_>>() {
            let answers = call.await.expect("a call").expect("answers");
            created += answers.iter().filter(|answer| answer.is_created()).count();
        }
        assert_eq!(created, 20);
        let leases = claim(&store, 100).await.jobs;
        assert_eq!(leases.len(), 20);
        settle(&store, &leases, &SUCCEED).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_keeps_a_transaction_open_holds_up_nobody() {
    let (store, _, mut other) = store().await;
    run(&mut other, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    let theirs = store.enqueue_in(&mut other, jobs(3)).await.expect("taken in");
    let ours = add(&store, jobs(2)).await;
    let leases = claim(&store, 10).await.jobs;
    assert_eq!(ids(&leases), ours);
    settle(&store, &leases, &SUCCEED).await;
    let prune = leasehold_core::backend::Prune { limit: 10, workers_after: Duration::from_secs(60) };
    store.prune(soon(), prune).await.expect("pruned");
    assert_eq!(crate::bench::counts(&store).await.enqueued, 2);
    run(&mut other, "COMMIT").await;
    assert_eq!(
        ids(&claim(&store, 10).await.jobs),
        theirs.iter().map(|answer| answer.job).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_done_with_its_callers_transaction_or_not_at_all() {
    let (store, schema, mut other) = store().await;
    run(&mut other, format!("CREATE TABLE {schema}.orders (id integer)")).await;
    add(&store, jobs(2)).await;
    let leases = claim(&store, 2).await.jobs;
    let (lost, held) = (&leases[..1], &leases[1..]);
    assert_eq!(settle(&store, lost, &SUCCEED).await, [Answer::Applied]);
    let release = Verdict::Release { reason: Reason::Released, delay: Duration::ZERO };
    for (end, state) in [("ROLLBACK", State::Running), ("COMMIT", State::Succeeded)] {
        run(&mut other, format!("BEGIN; INSERT INTO {schema}.orders VALUES (1)")).await;
        let settlements = settling(&leases, &SUCCEED).settlements;
        let answers = store.settle_in(&mut other, settlements).await.expect("settled");
        assert_eq!(answers, [Answer::AlreadyApplied, Answer::Applied]);
        // Whoever has lost a job is told so before the commit.
        let answers =
            store.settle_in(&mut other, settling(lost, &release).settlements).await.expect("answered");
        assert_eq!(answers, [Answer::Lost]);
        run(&mut other, end).await;
        assert_eq!(find(&store, held[0].job.id).await.state, state, "after {end}");
    }
    assert_eq!(number(&mut other, format!("SELECT count(*) FROM {schema}.orders")).await, 1);
    assert_eq!(settle(&store, held, &SUCCEED).await, [Answer::AlreadyApplied]);
}
