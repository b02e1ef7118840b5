//! Keys that are not what they should be.

use std::time::Duration;

use leasehold_core::backend::{
    AmendAnswer, CheckIn, Claim, Enqueue, Filter, KindRule, List, Order, Verdict, WorkerInfo,
};
use leasehold_core::{Backend, ErrorKind, NewJob, Payload, Reason, UniqueScope, WorkerId};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;

use crate::bench::{
    SUCCEED, add, asking, claim, counts, delete, find, job, must_add_up, set_up, settle, settling, soon,
};

/// What jobs of the queue `default` touch.
const SHARED: [&str; 13] = [
    "age",
    "leases",
    "expiry",
    "queues",
    "unique",
    "running",
    "heads",
    "counts:default",
    "limited:default",
    "shown:default",
    "lanes:default",
    "ready:default\n0\nwork",
    "log_ages",
];

#[tokio::test]
async fn a_key_of_another_type_is_an_error_and_leaves_nothing_half_written() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    add(&store, vec![job(), job(), job()]).await;
    let held = claim(&store, 1).await.jobs.remove(0);
    let before = counts(&store).await;
    for name in SHARED {
        let (key, aside) = (format!("{{leasehold}}:{name}"), "{leasehold}:aside");
        let was_there = server.run(&["RENAME", &key, aside]).is_ok();
        server.run(&["SET", &key, "somebody else's"]).expect("set");
        let enqueue = store.enqueue(soon(), Enqueue { jobs: vec![job()] }).await.expect_err(name);
        assert_eq!(enqueue.kind(), ErrorKind::Corrupt, "{name:?}: {enqueue:?}");
        let release = Verdict::Release { reason: Reason::Interrupted, delay: Duration::ZERO };
        let release = settling(std::slice::from_ref(&held), &release);
        let released = store.settle(soon(), release).await.expect_err(name);
        assert_eq!(released.kind(), ErrorKind::Corrupt, "{name:?}: {released:?}");
        // A claim may find nothing where the key says what there is, and takes nothing in any case.
        match store.claim(soon(), asking(1)).await {
            Ok(claimed) => assert_eq!(claimed.jobs, [], "{name:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{name:?}: {error:?}"),
        }
        server.run(&["DEL", &key]).expect("deleted");
        if was_there {
            server.run(&["RENAME", aside, &key]).expect("back again");
        }
        assert_eq!(counts(&store).await, before, "{name:?}");
    }
    assert_eq!(must_add_up(&store).await, 3);
    settle(&store, &held, &SUCCEED).await;
    assert_eq!(claim(&store, 9).await.jobs.len(), 2);
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_job_is_set_aside_and_stops_no_other() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let limited = || job().limit("narrow".parse().expect("a key"), 1);
    let ids = add(&store, vec![job(), limited(), limited(), job()]).await;
    let key = |nth: usize| format!("{{leasehold}}:job:{}", ids[nth]);
    server.run(&["DEL", &key(0)]).expect("deleted");
    server.run(&["DEL", &key(1)]).expect("deleted");
    server.run(&["SET", &key(1), "somebody else's"]).expect("set");
    let claimed = store.claim(soon(), asking(9)).await.expect("a claim");
    let given: Vec<_> = claimed.jobs.iter().map(|lease| lease.job.id).collect();
    assert_eq!(given, [ids[2], ids[3]]);
    assert_eq!(claimed.set_aside.iter().filter_map(|aside| aside.job).collect::<Vec<_>>(), ids[..2]);
    let counts = counts(&store).await;
    assert_eq!((counts.total(), counts.of(leasehold_core::State::Failed)), (4, 2));
    let kept = server.run(&["GET", &format!("{{leasehold}}:unreadable:{}", ids[1])]).expect("kept");
    assert_eq!(kept, "somebody else's");
    for lease in &claimed.jobs {
        settle(&store, lease, &SUCCEED).await;
    }
    find(&store, ids[3]).await;
}

#[tokio::test]
async fn a_namespace_of_a_newer_version_is_refused_by_every_call() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    for make in [&["HSET", "{leasehold}:meta", "version", "2"][..], &["SET", "{leasehold}:meta", "x"]] {
        server.run(make).expect("set");
        let newer = Redis::connect(server.url()).await.expect("a store");
        let check_in = CheckIn {
            worker: WorkerId::generate(),
            info: WorkerInfo::new("w".parse().expect("a name"), "host", 1),
            lost_after: std::time::Duration::from_secs(1),
            leaving: false,
        };
        let refused = [
            newer.setup(soon()).await.expect_err("refused"),
            store.claim(soon(), asking(1)).await.expect_err("refused"),
            store.check_in(soon(), check_in).await.expect_err("refused"),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
            assert!(error.to_string().contains("another version"), "{error}");
        }
    }
}

/// What a key of the wrong type does to jobs of other lanes than its own, which a limit key binds to it.
async fn beside_a_broken_lane(at_claim: bool) {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    // Which of the sets that a call changes is written first is as good as random.
    for round in 0..20 {
        let of = |kind: &str| NewJob::new(kind.parse().expect("a name"), Payload::from(b"{}".to_vec()));
        let narrow = |kind: &str| of(kind).limit(format!("narrow-{round}").parse().expect("a key"), 1);
        let whole = format!("whole-{round}");
        let broken = format!("broken-{round}");
        add(&store, vec![narrow(&whole), of(&whole), of(&whole), narrow(&broken)]).await;
        let kinds = KindRule::Only([whole.parse().expect("a name")].into());
        let asking = Claim { kinds, ..asking(3) };
        let lane = format!("{{leasehold}}:ready:default\n0\n{broken}");
        let mut leases = Vec::new();
        if !at_claim {
            leases = store.claim(soon(), asking.clone()).await.expect("a claim").jobs;
            assert_eq!(leases.len(), 3);
        }
        let was_there = server.run(&["RENAME", &lane, "{leasehold}:aside"]).is_ok();
        server.run(&["SET", &lane, "somebody else's"]).expect("set");
        let error = if at_claim {
            store.claim(soon(), asking.clone()).await.map(drop).expect_err("an error")
        } else {
            store.settle(soon(), settling(&leases, &SUCCEED)).await.map(drop).expect_err("an error")
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        server.run(&["DEL", &lane]).expect("deleted");
        if was_there {
            server.run(&["RENAME", "{leasehold}:aside", &lane]).expect("back again");
        }
        must_add_up(&store).await;
        let running = counts(&store).await.of(leasehold_core::State::Running).to_string();
        assert_eq!(server.run(&["ZCARD", "{leasehold}:leases"]).expect("a number"), running);
    }
}

#[tokio::test]
async fn a_claim_beside_a_lane_of_another_type_leaves_a_lease_to_each_job_that_runs() {
    beside_a_broken_lane(true).await;
}

#[tokio::test]
async fn a_settlement_beside_a_lane_of_another_type_is_counted() {
    beside_a_broken_lane(false).await;
}

#[tokio::test]
async fn a_job_that_was_set_aside_lets_go_of_its_unique_key() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let keyed = || job().unique("key".parse().expect("a key"), UniqueScope::UntilFinished);
    let ids = add(&store, vec![keyed()]).await;
    server.run(&["HDEL", &format!("{{leasehold}}:job:{}", ids[0]), "lane"]).expect("deleted");
    let claimed = store.claim(soon(), asking(1)).await.expect("a claim");
    assert_eq!(claimed.set_aside.len(), 1);
    assert_eq!(counts(&store).await.of(leasehold_core::State::Failed), 1);
    let answers = store.enqueue(soon(), Enqueue { jobs: vec![keyed()] }).await.expect("answers");
    assert!(answers[0].is_created(), "{answers:?}");
}

#[tokio::test]
async fn a_payload_of_another_type_stops_no_search_for_others() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let long = |text: &str| NewJob::new(job().kind, Payload::from(text.repeat(200).into_bytes()));
    let ids = add(&store, vec![long("first"), long("second")]).await;
    let body = format!("{{leasehold}}:body:{}", ids[0]);
    server.run(&["DEL", &body]).expect("deleted");
    server.run(&["SADD", &body, "somebody else's"]).expect("added");
    let mut filter = Filter::default();
    filter.payload_contains = Some("second".into());
    let list = List { filter, order: Order::OldestFirst, after: None, limit: 9 };
    let page = store.list(soon(), list).await.expect("a page");
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), ids[1..]);
}

#[tokio::test]
async fn a_record_that_tells_of_another_lane_than_it_stands_in_is_set_aside() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let ids = add(&store, vec![job()]).await;
    server.run(&["HSET", &format!("{{leasehold}}:job:{}", ids[0]), "lane", "default\n7\nwork"]).expect("set");
    let claimed = claim(&store, 1).await;
    assert_eq!((claimed.jobs.len(), claimed.set_aside.len()), (0, 1));
    assert_eq!(claim(&store, 1).await.jobs, []);
    assert_eq!(counts(&store).await.of(leasehold_core::State::Failed), 1);
}

#[tokio::test]
async fn what_was_set_aside_can_be_removed_by_an_operator() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    for lacks in ["lane", "limit_max"] {
        let ids = add(&store, vec![job().limit("narrow".parse().expect("a key"), 1)]).await;
        server.run(&["HDEL", &format!("{{leasehold}}:job:{}", ids[0]), lacks]).expect("deleted");
        let claimed = store.claim(soon(), asking(1)).await.expect("a claim");
        assert_eq!(claimed.set_aside.len(), 1, "without {lacks}");
        assert_eq!(delete(&store, ids[0]).await, AmendAnswer::Applied, "without {lacks}");
        assert_eq!(counts(&store).await.total(), 0, "without {lacks}");
    }
}
