//! A primary that its secondaries do not follow, and that is gone with what only it had.

use std::time::Duration;

use leasehold_core::backend::{Answer, Enqueue};
use leasehold_core::{Backend, Deadline, State};
use leasehold_mongo::Config;
use leasehold_mongo::mongodb::bson::{Document, doc};
use leasehold_mongo::mongodb::options::WriteConcern;
use leasehold_test_servers::{Mongo as Server, Node};

use crate::bench::{
    SUCCEED, add, again, asking, claim, counts, database, find, fresh, jobs, must_be_in_doubt, set_up,
    settle, settling, until,
};

const POINT: &str = "stopReplProducer";
const PLAIN: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_takes_back_nothing_that_was_acknowledged_and_all_that_a_plain_driver_wrote() {
    let server = Server::own(3).expect("servers");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let acknowledged = add(&store, jobs(12)).await;
    let leases = claim(&store, 6).await.jobs;
    let (ended, open) = leases.split_at(3);
    for lease in ended {
        assert_eq!(settle(&store, lease, &SUCCEED).await, Answer::Applied);
    }
    let first = server.primary().await.expect("a primary");
    let others: Vec<&Node> = server.nodes().iter().filter(|node| node.port() != first.port()).collect();
    for node in &others {
        node.fail(POINT, "alwaysOn", doc! {}).await.expect("set");
        let met = doc! {"waitForFailPoint": POINT, "timesEntered": 1, "maxTimeMS": 8_000};
        node.run(met).await.expect("it fetches nothing any more");
    }
    let plain = database(store.client(), &config).collection::<Document>("plain");
    for n in 0..PLAIN {
        let one = WriteConcern::builder()
            .w(leasehold_mongo::mongodb::options::Acknowledgment::Nodes(1))
            .journal(true);
        plain.insert_one(doc! {"n": n as i32}).write_concern(one.build()).await.expect("acknowledged");
    }
    let d = || Deadline::after(Duration::from_secs(1));
    let late = jobs(3);
    let asked = asking(2);
    must_be_in_doubt("enqueue", store.enqueue(d(), Enqueue { jobs: late.clone() }).await);
    must_be_in_doubt("claim", store.claim(d(), asked.clone()).await);
    must_be_in_doubt("settle", store.settle(d(), settling(open, &SUCCEED)).await);
    // The primary itself has it all, and shows nothing of it to who reads what a majority has.
    assert_eq!(counts_at(first, &config).await, (15, 6));
    first.kill().expect("killed");
    for node in &others {
        node.heal(POINT).await.expect("healed");
    }
    server.primary().await.expect("another primary");
    first.start().expect("started");
    until("the old primary has come back", async || {
        let hello = first.run(doc! {"hello": 1}).await;
        hello.is_ok_and(|hello| hello.get_bool("secondary").unwrap_or(false))
    })
    .await;
    let left = again(async || {
        plain.count_documents(doc! {}).await.map_err(|error| {
            leasehold_core::Error::new(leasehold_core::ErrorKind::Unavailable, error.to_string())
        })
    })
    .await;
    println!("{left} of {PLAIN} writes acknowledged by one node are left");
    assert_eq!(left, 0, "nothing was rolled back, so nothing is proved");
    for id in &acknowledged {
        find(&store, *id).await;
    }
    for lease in ended {
        assert_eq!(find(&store, lease.job.id).await.state, State::Succeeded);
        assert_eq!(settle(&store, lease, &SUCCEED).await, Answer::AlreadyApplied);
    }
    // What was in doubt was not done, and is when it is repeated.
    let counted = counts(&store).await;
    assert_eq!((counted.total(), counted.of(State::Running)), (12, 3));
    assert_eq!(settle(&store, &open[0], &SUCCEED).await, Answer::Applied);
    add(&store, late).await;
    assert_eq!(store.claim(Deadline::default(), asked).await.expect("a claim").jobs.len(), 2);
    let counted = counts(&store).await;
    assert_eq!((counted.total(), counted.of(State::Running), counted.of(State::Succeeded)), (15, 4, 4));
}

/// How many jobs a node has, and how many of them have ended, by what it alone knows.
async fn counts_at(node: &Node, config: &Config) -> (u64, u64) {
    let client = leasehold_mongo::mongodb::Client::with_uri_str(node.url()).await.expect("a client");
    let jobs = database(&client, config).collection::<Document>("leasehold_jobs");
    let all = jobs.count_documents(doc! {}).await.expect("a count");
    (all, jobs.count_documents(doc! {"state": "succeeded"}).await.expect("a count"))
}
