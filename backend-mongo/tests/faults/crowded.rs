//! Queues in which much stands in the way: full limit keys, damaged records, many queues.

use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, Claim, Counts, Pause, Prune, QueueSettings, Select, SetQueue, Verdict,
};
use leasehold_core::{Backend, Due, ManualClock, QueueName, Reason, State, WorkerId};
use leasehold_mongo::Config;
use leasehold_mongo::mongodb::bson::spec::BinarySubtype;
use leasehold_mongo::mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use leasehold_test_servers::Mongo as Server;

use crate::bench::{
    LEASE, SUCCEED, add, asking, claim, database, find, fresh, job, jobs, set_up, settle, settling, soon,
};

#[tokio::test(flavor = "multi_thread")]
async fn full_limit_keys_do_not_block_what_stands_behind_them() {
    let server = Server::own(1).expect("a server");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    let limited = || (0..40).map(|n| job().limit(format!("key-{n}").parse().expect("a key"), 1)).collect();
    add(&store, limited()).await;
    assert_eq!(claim(&store, 40).await.jobs.len(), 40);
    add(&store, limited()).await;
    let free = add(&store, jobs(1)).await[0];
    let claimed = claim(&store, 1).await.jobs;
    assert_eq!(claimed.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [free]);
}

fn binary(bytes: &[u8; 16]) -> Bson {
    Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_stops_no_settlement_and_no_amendment_of_others() {
    let server = Server::own(1).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let all = database(store.client(), &config).collection::<Document>("leasehold_jobs");
    let mut faults = Vec::new();
    for damage in [
        doc! {"$set": {"keep": {"succeeded": "long", "cancelled": "long", "failed": "long"}}},
        doc! {"$set": {"keep": 5}},
        doc! {"$set": {"keep": {"succeeded": i64::MAX, "failed": i64::MAX, "cancelled": i64::MAX}}},
        doc! {"$set": {"generation": "first"}},
        doc! {"$set": {"attempt": "first"}},
        doc! {"$set": {"crashes": "none"}},
    ] {
        let ids = add(&store, jobs(2)).await;
        let leases = claim(&store, 2).await.jobs;
        let bad = doc! {"_id": binary(ids[0].as_uuid().as_bytes())};
        all.update_one(bad, damage.clone()).await.expect("damage");
        if let Err(error) = store.settle(soon(), settling(&leases, &SUCCEED)).await {
            faults.push(format!("settle {damage}: {error}"));
        }
        if find(&store, ids[1]).await.state != State::Succeeded {
            faults.push(format!("settle {damage}: the other is not settled"));
        }
        let requeue = Action::Requeue { due: Due::In(Duration::from_secs(99)) };
        for action in [requeue, Action::Cancel] {
            let amend = Amend { select: Select::Ids(ids.clone()), action: action.clone(), preview: false };
            if let Err(error) = store.amend(soon(), amend).await {
                faults.push(format!("{action:?} {damage}: {error}"));
            }
        }
        all.delete_many(doc! {}).await.expect("removed");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_claim_takes_nothing_new_from_where_it_may_not() {
    let server = Server::own(1).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let claims = database(store.client(), &config).collection::<Document>("leasehold_claims");
    let ids = add(&store, jobs(3)).await;
    let noted: Vec<_> = ids.iter().map(|id| binary(id.as_uuid().as_bytes())).collect();
    // As if these claims had been cut off when they were about to take.
    let (first, second) = (asking(1), asking(5));
    for claim in [&first, &second] {
        let note = doc! {"_id": binary(claim.id.as_uuid().as_bytes()), "jobs": noted.clone()};
        claims.insert_one(note).await.expect("a note");
    }
    let select = Select::Ids(vec![ids[0]]);
    let action = Action::Move { queue: "elsewhere".parse().expect("a name") };
    store.amend(soon(), Amend { select, action, preview: false }).await.expect("moved");
    let got = store.claim(soon(), first.clone()).await.expect("a claim").jobs;
    assert_eq!(got.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [ids[1]]);
    let settings = QueueSettings { pause: Some(Pause::default()), ..QueueSettings::default() };
    let queue = QueueName::default();
    store.set_queue(soon(), SetQueue { queue, settings }).await.expect("paused");
    assert!(store.claim(soon(), second).await.expect("a claim").jobs.is_empty());
    let held = store.claim(soon(), first).await.expect("a claim").jobs;
    assert_eq!(held.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [ids[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_many_queues_reads_no_more_than_it_needs() {
    let server = Server::own(1).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let database = database(store.client(), &config);
    let names = (0..250).map(|n| format!("q{n}").parse().expect("a name"));
    let queues: Vec<QueueName> = names.collect();
    let all = queues.iter().flat_map(|queue| jobs(20).into_iter().map(|job| job.queue(queue.clone())));
    let ids = add(&store, all.collect()).await;
    database.run_command(doc! {"profile": 2}).await.expect("a profiler");
    let claimed = store.claim(soon(), Claim::new(WorkerId::generate(), queues, 10, LEASE)).await;
    database.run_command(doc! {"profile": 0}).await.expect("no profiler");
    // Of one enqueue they are all due at the same time, so their ids tell their order.
    let given: Vec<_> = claimed.expect("a claim").jobs.iter().map(|lease| lease.job.id).collect();
    let mut first = ids;
    first.sort_unstable();
    assert_eq!(given, first[..10]);
    let much = doc! {"docsExamined": {"$gt": 1_000}};
    let profile = database.collection::<Document>("system.profile");
    assert_eq!(profile.find_one(much).await.expect("a profile"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_removed_when_they_are_over_and_counted_once() {
    let server = Server::own(1).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let all = database(store.client(), &config).collection::<Document>("leasehold_jobs");
    let long_ago = DateTime::from_millis(1);
    for n in 0..5 {
        let over = doc! {"_id": n, "queue": "default", "state": "failed", "finished_at": long_ago, "expires_at": long_ago};
        all.insert_one(over).await.expect("a stranger");
    }
    let prune = || Prune { limit: 3, workers_after: Duration::from_secs(3_600) };
    let mut rounds = 0;
    while store.prune(soon(), prune()).await.expect("pruned").more {
        rounds += 1;
        assert!(rounds < 10, "pruning never ends");
    }
    let counts = store.counts(soon(), Counts::default()).await.expect("counts");
    assert_eq!((counts[0].total(), counts[0].deleted), (0, 5), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_put_back_comes_before_any_number_of_lower_ones_that_are_long_due() {
    let server = Server::own(1).expect("a server");
    let clock = ManualClock::default();
    let store = set_up(Config::new(server.url()).database(fresh()).clock(clock.clone())).await;
    let low = || job().priority(-5).delay(Duration::from_millis(1));
    add(&store, (0..50).map(|_| low()).collect()).await;
    clock.advance(Duration::from_secs(1));
    let first = add(&store, jobs(1)).await[0];
    clock.advance(Duration::from_secs(1));
    add(&store, jobs(4_000)).await;
    let lease = claim(&store, 1).await.jobs.remove(0);
    assert_eq!(lease.job.id, first);
    for _ in 0..4 {
        claim(&store, 500).await;
    }
    clock.advance(Duration::from_secs(2));
    for _ in 0..5 {
        claim(&store, 100).await;
    }
    let back = Verdict::Release { reason: Reason::Interrupted, delay: Duration::ZERO };
    settle(&store, &lease, &back).await;
    let next = claim(&store, 10).await.jobs;
    assert_eq!(next[0].job.id, first);
}
