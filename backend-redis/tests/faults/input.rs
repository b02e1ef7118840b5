//! Names and payloads that mean something to Redis, to Lua and to us.

use leasehold_core::backend::{Claim, Filter, KindRule, List, Order, TagRule};
use leasehold_core::{Backend, Kind, NewJob, Payload, QueueName, UniqueScope, WorkerId};
use leasehold_redis::Config;
use leasehold_test_servers::Redis as Server;

use crate::bench::{LEASE, SUCCEED, add, claim, find, job, set_up, settle, soon};

const HOSTILE: [&str; 8] = [
    "{other}:job:1",
    "a:b:c",
    "*",
    "'; return redis.call('FLUSHALL') --",
    "%s%d%%",
    "\\n\\t\\0",
    "ä漢\u{1f600}",
    "[[x]]",
];

#[tokio::test]
async fn names_that_mean_something_to_the_server_are_names() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    for name in HOSTILE {
        let payload = [name.as_bytes(), &[0, 255, 13, 10]].concat();
        let hostile = NewJob::new(Kind::new(name).expect("a name"), Payload::from(payload.clone()))
            .queue(QueueName::new(name).expect("a name"))
            .tag(name.parse().expect("a tag"))
            .limit(name.parse().expect("a key"), 1)
            .unique(name.parse().expect("a key"), UniqueScope::UntilFinished);
        let mut second = hostile.clone();
        (second.id, second.options.unique) = (leasehold_core::JobId::generate(), None);
        let ids = add(&store, vec![hostile, second]).await;
        let mut claim = Claim::new(WorkerId::generate(), [QueueName::new(name).expect("a name")], 5, LEASE);
        claim.kinds = KindRule::Only([Kind::new(name).expect("a name")].into());
        claim.tags = TagRule::JobHasAll([name.parse().expect("a tag")].into());
        let given = store.claim(soon(), claim).await.expect("a claim").jobs;
        assert_eq!(given.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), ids[..1], "{name}");
        assert_eq!(given[0].job.payload.as_bytes(), payload, "{name}");
        let mut filter = Filter::default();
        filter.payload_contains = Some(name.into());
        filter.kinds = Some(vec![Kind::new(name).expect("a name")]);
        filter.tags = Some(vec![name.parse().expect("a tag")]);
        let list = List { filter, order: Order::NewestFirst, after: None, limit: 9 };
        assert_eq!(store.list(soon(), list).await.expect("a page").jobs.len(), 2, "{name}");
        settle(&store, &given[0], &SUCCEED).await;
    }
    let keys =
        server.run(&["EVAL", "return #redis.call('KEYS', '{leasehold}:*') - redis.call('DBSIZE')", "0"]);
    assert_eq!(keys.expect("an answer"), "0", "keys outside of the namespace");
    let counts = store.counts(soon(), leasehold_core::backend::Counts::default()).await.expect("counts");
    assert_eq!(
        counts.iter().map(leasehold_core::backend::QueueCounts::total).sum::<u64>(),
        2 * HOSTILE.len() as u64
    );
}

#[tokio::test]
async fn payloads_of_every_length_come_back_whole() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    // On both sides of where a field or a key more is needed; each is there whole after it took the place of another.
    let lengths = [0, 1, 64, 65, 128, 129, 192, 193, 1_000, 193, 192, 1_000, 65, 64, 0];
    let of = |length: usize| {
        let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
        NewJob::new(job().kind, Payload::from(bytes))
    };
    for length in lengths {
        let new = of(length);
        let ids = add(&store, vec![new.clone()]).await;
        let given = claim(&store, 1).await.jobs.remove(0);
        assert_eq!((given.job.id, &given.job.payload), (ids[0], &new.payload), "{length}");
        assert_eq!(find(&store, ids[0]).await.payload, new.payload, "{length}");
        settle(&store, &given, &SUCCEED).await;
    }
    let first =
        add(&store, vec![of(3).unique("key".parse().expect("a key"), UniqueScope::UntilFinished)]).await;
    for length in lengths {
        let new = of(length).replace("key".parse().expect("a key"), UniqueScope::UntilFinished);
        assert_eq!(add(&store, vec![new.clone()]).await, first, "{length}");
        assert_eq!(find(&store, first[0]).await.payload, new.payload, "{length}");
    }
}
