//! The only node is killed under load, again and again.

use std::time::Duration;

use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;
use tokio::time::Instant;

use crate::bench::{add, again, asking, fresh, jobs, set_up, soon, until};
use crate::load::Load;
use leasehold_core::Backend;

/// How soon everything works again once the server does.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_nothing_that_it_acknowledged() {
    let server = Server::own(1).expect("a server");
    let node = &server.nodes()[0];
    let config = Config::new(server.url()).database(fresh());
    let watcher = set_up(config.clone()).await;
    let tally = Load::run(config, 600, 1, async |load| {
        for round in 0..4 {
            load.settled(60).await;
            load.journal.fault(format!("kill {round}")).expect("written");
            node.kill().expect("killed");
            node.start().expect("started");
            server.primary().await.expect("a primary");
            let back = Instant::now();
            again(async || watcher.claim(soon(), asking(0)).await).await;
            assert!(back.elapsed() < SOON, "it worked again only {:?} after its server", back.elapsed());
        }
    })
    .await;
    println!("{tally:?}");
    // Whoever repeats a claim finds what it was given, but for one whose note went with its primary (decision 4).
    assert!(tally.losses <= 10, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_found_again_by_who_was_there_before() {
    let server = Server::own(1).expect("a server");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    add(&store, jobs(3)).await;
    let node = &server.nodes()[0];
    node.kill().expect("killed");
    let begun = Instant::now();
    let error = store.claim(soon(), asking(3)).await.expect_err("no server");
    assert!(error.is_transient(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let error = Mongo::connect(server.url()).await.expect_err("no server");
    assert!(error.is_transient(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    node.start().expect("started");
    let mut given = 0;
    until("the jobs are given out", async || {
        given += store.claim(soon(), asking(3)).await.map_or(0, |claimed| claimed.jobs.len());
        given == 3
    })
    .await;
}
