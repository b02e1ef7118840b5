//! Keys that are not what they should be.

use std::time::Duration;

use leasehold_core::backend::{CheckIn, Enqueue, Settle, Settlement, Verdict, WorkerInfo};
use leasehold_core::{Backend, ErrorKind, Reason, WorkerId};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;

use crate::bench::{add, asking, claim, counts, find, job, must_add_up, set_up, settle, soon};

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
    let held = claim(&store, 1).await.remove(0);
    let before = counts(&store).await;
    for name in SHARED {
        let (key, aside) = (format!("{{leasehold}}:{name}"), "{leasehold}:aside");
        let was_there = server.run(&["RENAME", &key, aside]).is_ok();
        server.run(&["SET", &key, "somebody else's"]).expect("set");
        let enqueue = store.enqueue(soon(), Enqueue { jobs: vec![job()] }).await.expect_err(name);
        assert_eq!(enqueue.kind(), ErrorKind::Corrupt, "{name:?}: {enqueue:?}");
        let verdict = Verdict::Release { reason: Reason::Interrupted, delay: Duration::ZERO };
        let release = Settlement { job: held.job.id, token: held.token, verdict, failure: None };
        let released = store.settle(soon(), Settle { settlements: vec![release] }).await.expect_err(name);
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
    settle(&store, &held).await;
    assert_eq!(claim(&store, 9).await.len(), 2);
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
        settle(&store, lease).await;
    }
    assert!(find(&store, ids[3]).await.is_some());
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
