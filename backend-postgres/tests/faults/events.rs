//! Events whose connection is lost, and transactions that tell.

use std::time::Duration;

use futures::StreamExt;
use leasehold_core::Backend;
use leasehold_core::backend::{Event, Watch};
use tokio::time::timeout;

use crate::bench::{PATIENCE, add, job, jobs, run, soon, store};

/// Reads until such an event comes.
async fn hear(events: &mut futures::stream::BoxStream<'static, Event>, wanted: impl Fn(&Event) -> bool) {
    let find = async { while !wanted(&events.next().await.expect("the stream goes on")) {} };
    timeout(PATIENCE, find).await.expect("such an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_connection_is_lost_tells_of_a_gap_and_goes_on() {
    let (store, schema, mut other) = store().await;
    let mut events = store.watch(soon(), Watch::default()).await.expect("events");
    add(&store, jobs(1)).await;
    hear(&mut events, |event| matches!(event, Event::Waiting { .. })).await;
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE query LIKE 'LISTEN%' AND query LIKE '%' || {schema}.channel() || '%'"
    );
    run(&mut other, end).await;
    hear(&mut events, |event| *event == Event::Gap).await;
    add(&store, jobs(1)).await;
    hear(&mut events, |event| matches!(event, Event::Waiting { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_commit_tells_and_a_rollback_does_not() {
    let (store, _, mut other) = store().await;
    let mut events = store.watch(soon(), Watch::default()).await.expect("events");
    run(&mut other, "BEGIN").await;
    store
        .enqueue_in(&mut other, vec![job().queue("undone".parse().expect("a name"))])
        .await
        .expect("taken in");
    run(&mut other, "ROLLBACK; BEGIN").await;
    store.enqueue_in(&mut other, jobs(2)).await.expect("taken in");
    run(&mut other, "COMMIT").await;
    let first = timeout(PATIENCE, events.next()).await.expect("an event").expect("an event");
    assert_eq!(first, Event::Waiting { queue: "default".parse().expect("a name") });
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_notifications_are_gaps_and_do_no_harm() {
    let (store, schema, mut other) = store().await;
    let mut events = store.watch(soon(), Watch::default()).await.expect("events");
    for text in ["", "{}", "[[[[", "[{\"waiting\":\"\"},{\"of_tomorrow\":1},7]", "[\"gap\"]"] {
        run(&mut other, format!("SELECT pg_notify({schema}.channel(), '{text}')")).await;
    }
    for _ in 0..4 {
        let event = timeout(PATIENCE, events.next()).await.expect("an event");
        assert_eq!(event, Some(Event::Gap));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_few_however_many_jobs_there_are() {
    let (store, schema, mut other) = store().await;
    let channel: String = leasehold_postgres::sqlx::query_scalar(leasehold_postgres::sqlx::AssertSqlSafe(
        format!("SELECT {schema}.channel()"),
    ))
    .fetch_one(&mut other)
    .await
    .expect("a channel");
    let mut listener = leasehold_postgres::sqlx::postgres::PgListener::connect(crate::bench::SERVER.url())
        .await
        .expect("a listener");
    listener.listen(&channel).await.expect("it listens");
    for _ in 0..200 {
        add(&store, jobs(50)).await;
    }
    let mut heard = 0;
    while timeout(Duration::from_millis(500), listener.recv()).await.is_ok() {
        heard += 1;
    }
    assert!((1..=200).contains(&heard), "{heard} notifications of 200 calls with 10,000 jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_ends_its_streams_and_refuses_calls() {
    let (store, ..) = store().await;
    let mut events = store.watch(soon(), Watch::default()).await.expect("events");
    store.close().await;
    let ended = timeout(PATIENCE, async { while events.next().await.is_some() {} });
    ended.await.expect("the stream ends");
    let error = store.now(soon()).await.expect_err("closed");
    assert_eq!(error.kind(), leasehold_core::ErrorKind::Closed);
}
