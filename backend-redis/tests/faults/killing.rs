//! The server is killed, frozen, robbed of its scripts and given another hour, under load.

use std::time::Duration;

use leasehold_conformance::Skew;
use leasehold_core::{Backend, ErrorKind};
use leasehold_redis::Config;
use leasehold_test_servers::Redis as Server;
use tokio::time::{Instant, sleep};

use crate::bench::{add, again, asking, claim, job, set_up, soon};
use crate::load::Load;

/// By how many milliseconds the clock is off at worst: many times as long as a lease.
const STEP: i64 = 90_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_nothing_that_it_acknowledged() {
    let server = Server::own().expect("a server");
    let tally = Load::run(Config::new(server.url()), 1_500, 4, async |load| {
        for round in 0..4 {
            load.ran(100).await;
            load.journal.fault(format!("kill {round}")).expect("written");
            server.kill().expect("killed");
            server.restart().expect("started");
        }
    })
    .await;
    println!("{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_frozen_under_load_is_used_again_when_it_goes_on() {
    let server = Server::own().expect("a server");
    let tally = Load::run(Config::new(server.url()), 600, 1, async |load| {
        load.ran(100).await;
        load.journal.fault("frozen").expect("written");
        server.freeze().expect("frozen");
        sleep(Duration::from_secs(7)).await;
        server.thaw().expect("thawed");
        load.ran(100).await;
    })
    .await;
    println!("{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_its_scripts_under_load_is_given_them_again() {
    let server = Server::own().expect("a server");
    Load::run(Config::new(server.url()), 3_000, 0, async |load| {
        for _ in 0..10 {
            load.ran(20).await;
            server.run(&["SCRIPT", "FLUSH"]).expect("flushed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_stepped_under_load_loses_nothing_and_fences_all() {
    let skew = Skew::new(0).expect("a clock that can be stepped");
    let server = Server::own_with(&[], &skew.environment()).expect("a server");
    let config = Config::new(server.url());
    let watcher = set_up(config.clone()).await;
    let hour = async || again(async || watcher.now(soon()).await).await.as_millis();
    let tally = Load::run(config, 1_000, 0, async |load| {
        for _ in 0..2 {
            for (off, step) in [(-STEP, -STEP), (0, STEP)] {
                load.ran(100).await;
                let before = hour().await;
                load.journal.clock_step(step).expect("written");
                skew.set(off).expect("stepped");
                let moved = hour().await - before;
                assert!((moved - step).abs() < STEP / 3, "the server's clock moved by {moved} ms");
            }
        }
    })
    .await;
    assert_eq!(tally.faults, 4, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_to_be_so_at_once_and_found_again() {
    let server = Server::own().expect("a server");
    let store = set_up(Config::new(server.url())).await;
    add(&store, vec![job()]).await;
    server.kill().expect("killed");
    let begun = Instant::now();
    for _ in 0..3 {
        let error = store.claim(soon(), asking(1)).await.expect_err("no server");
        assert!(error.is_transient(), "{error:?}");
    }
    let error = store.claim(soon(), asking(1)).await.expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.restart().expect("started");
    again(async || store.now(soon()).await).await;
    assert_eq!(claim(&store, 1).await.jobs.len(), 1);
}
