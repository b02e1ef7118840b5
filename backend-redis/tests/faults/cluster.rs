//! A cluster: all keys of a namespace are in one slot, and calls find the node that has it.

use futures::StreamExt;
use leasehold_core::backend::{
    Answer, AppendLogs, Event, Level, LogAppend, LogSource, NewLine, Prune, ReadLogs, Watch,
};
use leasehold_core::{Backend, Keep, UniqueScope};
use leasehold_redis::redis;
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;

use crate::bench::{SUCCEED, add, claim, delete, job, must_add_up, set_up, settle, soon, until};

const SLOTS: u32 = 16_384;

/// Nodes of a cluster that share the slots evenly.
async fn cluster(nodes: u32) -> Vec<Server> {
    let start = |_| Server::own_with(&["--cluster-enabled", "yes"], &[]).expect("a server");
    let servers: Vec<Server> = (0..nodes).map(start).collect();
    for (i, server) in (0..nodes).zip(&servers) {
        let (first, last) = (i * SLOTS / nodes, (i + 1) * SLOTS / nodes - 1);
        server.run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).expect("slots");
        let port = servers[0].port().expect("a port").to_string();
        server.run(&["CLUSTER", "MEET", "127.0.0.1", &port]).expect("met");
    }
    until("the cluster is one", async || {
        servers.iter().all(|server| {
            let info = server.run(&["CLUSTER", "INFO"]).unwrap_or_default();
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{nodes}"))
        })
    })
    .await;
    servers
}

/// A job's whole life and all that is around it, so that every kind of key is there.
async fn live(store: &Redis) {
    let mut events = store.watch(soon(), Watch { queues: None, logs: true }).await.expect("a stream");
    let limited = || job().limit("narrow".parse().expect("a key"), 1).keep(Keep::Forever);
    let unique = job().unique("only".parse().expect("a key"), UniqueScope::UntilFinished);
    let ids =
        add(store, vec![limited(), limited(), unique, job().delay(std::time::Duration::from_secs(3_600))])
            .await;
    let leases = claim(store, 9).await.jobs;
    assert_eq!(leases.len(), 2);
    let line = NewLine { level: Level::Info, message: "at work".into() };
    let append = LogAppend { job: leases[0].job.id, token: leases[0].token, position: 0, lines: vec![line] };
    assert_eq!(
        store.append_logs(soon(), AppendLogs { appends: vec![append] }).await.expect("an answer"),
        [Answer::Applied]
    );
    let logs = ReadLogs { source: LogSource::Job(leases[0].job.id), after: 0, limit: 9 };
    assert_eq!(store.read_logs(soon(), logs).await.expect("lines").lines.len(), 1);
    for lease in &leases {
        assert_eq!(settle(store, lease, &SUCCEED).await, Answer::Applied);
    }
    assert_eq!(claim(store, 9).await.jobs.len(), 1);
    delete(store, ids[3]).await;
    let prune = Prune { limit: 9, workers_after: std::time::Duration::from_secs(60) };
    store.prune(soon(), prune).await.expect("pruned");
    assert_eq!(must_add_up(store).await, 3);
    while !matches!(events.next().await.expect("an event"), Event::Logged { .. }) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_in_one_slot() {
    let server = cluster(1).await.remove(0);
    let store = set_up(Config::new(server.url())).await;
    live(&store).await;
    let client = redis::Client::open(server.url()).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut pipeline = redis::pipe();
    let enqueueing = store.enqueue_in(pipeline.atomic(), vec![job()]).expect("added");
    let answers: Vec<redis::Value> = pipeline.query_async(&mut connection).await.expect("run");
    let answers = enqueueing.read(answers.into_iter().next().expect("an answer")).expect("answers");
    assert!(answers[0].is_created());
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
    assert!(keys.len() > 15, "{keys:?}");
    let mut slots = Vec::new();
    for key in &keys {
        let slot: u32 =
            redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut connection).await.expect("a slot");
        slots.push(slot);
    }
    slots.dedup();
    assert_eq!(slots.len(), 1, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_finds_the_node_that_has_its_namespace() {
    let servers = cluster(2).await;
    let mut moved = 0;
    for number in 0..4 {
        let namespace = format!("shop{number}");
        let slot: u32 =
            servers[0].run(&["CLUSTER", "KEYSLOT", &namespace]).expect("a slot").parse().expect("a number");
        moved += u32::from(slot >= SLOTS / 2);
        live(&set_up(Config::new(servers[0].url()).namespace(namespace)).await).await;
    }
    assert!(moved > 0, "no namespace was on the other node");
}
