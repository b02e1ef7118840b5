//! A server that is killed, frozen, or full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold_core::backend::{Enqueue, Find};
use leasehold_core::{Backend, Deadline, ErrorKind, State};
use leasehold_postgres::Config;
use leasehold_postgres::sqlx::{Connection, PgConnection};
use leasehold_test_servers::Postgres as Server;
use tokio::time::Instant;

use crate::bench::{SUCCEED, add, again, claim, counts, job, jobs, set_up, settling, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing_that_was_acknowledged() {
    let server = Arc::new(Server::own().expect("a server"));
    let store = set_up(Config::new(server.url()).connections(4)).await;
    let over = Arc::new(AtomicBool::new(false));
    let work = |n: usize| {
        let (store, over) = (store.clone(), Arc::clone(&over));
        async move {
            let (mut acknowledged, mut ended) = (Vec::new(), Vec::new());
            while !over.load(Ordering::SeqCst) {
                let batch = jobs(5 + n);
                let short = || Deadline::after(Duration::from_secs(2));
                // Every call may be made again, and has the effect of one.
                again(async || store.enqueue(short(), Enqueue { jobs: batch.clone() }).await).await;
                acknowledged.extend(batch.iter().map(|job| job.id));
                let asking = crate::bench::asking(3);
                let given = again(async || store.claim(short(), asking.clone()).await).await.jobs;
                let settle = settling(&given, &SUCCEED);
                let answers = again(async || store.settle(short(), settle.clone()).await).await;
                assert!(answers.iter().all(|answer| *answer != leasehold_core::backend::Answer::Lost));
                ended.extend(given.iter().map(|lease| lease.job.id));
            }
            (acknowledged, ended)
        }
    };
    let breaking = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let server = Arc::clone(&server);
            let restarted = tokio::task::spawn_blocking(move || server.restart()).await;
            restarted.expect("no panic").expect("it comes up again");
        }
        over.store(true, Ordering::SeqCst);
    };
    let (done, ()) = tokio::join!(futures::future::join_all((0..3).map(work)), breaking);
    let (mut acknowledged, mut ended) = (Vec::new(), Vec::new());
    for (these, those) in done {
        acknowledged.extend(these);
        ended.extend(those);
    }
    assert!(acknowledged.len() > 20, "only {} jobs", acknowledged.len());
    let found = store.find(soon(), Find { ids: acknowledged.clone() }).await.expect("an answer");
    assert!(found.iter().all(Option::is_some));
    let found = store.find(soon(), Find { ids: ended.clone() }).await.expect("an answer");
    assert!(found.iter().flatten().all(|job| (job.state, job.attempt) == (State::Succeeded, 1)));
    let counts = counts(&store).await;
    assert_eq!((counts.enqueued, counts.total()), (acknowledged.len() as u64, acknowledged.len() as u64));
    assert_eq!(counts.of(State::Succeeded), ended.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_waited_for_until_the_deadline_and_no_longer() {
    let server = Server::own().expect("a server");
    let store = set_up(Config::new(server.url())).await;
    add(&store, jobs(3)).await;
    server.freeze().expect("frozen");
    let begun = Instant::now();
    let new = job();
    let request = Enqueue { jobs: vec![new.clone()] };
    let late = store.enqueue(Deadline::after(Duration::from_millis(400)), request).await;
    // On a machine so slow that the connection had to be asked first whether it works, nothing was sent.
    let kind = late.expect_err("no answer").kind();
    assert!([ErrorKind::Unknown, ErrorKind::Unavailable].contains(&kind), "{kind:?}");
    let late = store.find(Deadline::after(Duration::from_millis(400)), Find { ids: vec![new.id] }).await;
    assert_eq!(late.expect_err("no answer").kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    server.thaw().expect("thawed");
    add(&store, vec![new.clone()]).await;
    assert_eq!(claim(&store, 10).await.jobs.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_connection_left_is_unavailable_and_used_again() {
    let settings = ["max_connections=6", "superuser_reserved_connections=0", "max_wal_senders=0"];
    let server = Server::own_with(&settings, &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    store.close().await;
    let mut others = Vec::new();
    while let Ok(conn) = PgConnection::connect(server.url()).await {
        others.push(conn);
    }
    let error = leasehold_postgres::Postgres::connect(server.url()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("max_connections"), "{error}");
    drop(others);
    let store = again(async || leasehold_postgres::Postgres::connect(server.url()).await).await;
    add(&store, jobs(1)).await;
}
