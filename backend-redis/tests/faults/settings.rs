//! What the server is told to do with what it is given.

use leasehold_core::backend::Durability;
use leasehold_core::{Backend, ErrorKind};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;

use crate::bench::{set_up, soon};

async fn refused(server: &Server) -> String {
    let store = Redis::connect(server.url()).await.expect("a store");
    let error = store.setup(soon()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_server_that_throws_keys_away_is_refused_with_the_remedy() {
    for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
        let server =
            Server::own_with(&["--maxmemory", "64mb", "--maxmemory-policy", policy], &[]).expect("a server");
        let told = refused(&server).await;
        assert!(told.contains(policy) && told.contains("`maxmemory-policy noeviction`"), "{told}");
        server.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).expect("set");
        set_up(Config::new(server.url())).await;
    }
}

#[tokio::test]
async fn a_policy_without_a_bound_throws_nothing_away() {
    let server = Server::own_with(&["--maxmemory-policy", "allkeys-lru"], &[]).expect("a server");
    set_up(Config::new(server.url())).await;
}

#[tokio::test]
async fn a_replica_is_refused_and_a_primary_shows_how_many_it_has() {
    let primary = Server::own().expect("a server");
    let port = primary.port().expect("a port").to_string();
    let replica = Server::own_with(&["--replicaof", "127.0.0.1", &port], &[]).expect("a server");
    assert!(refused(&replica).await.contains("name its primary"));
    crate::bench::until("the replica is connected", async || {
        let store = set_up(Config::new(primary.url())).await;
        store.describe(soon()).await.expect("a description").version.ends_with(", 1 replicas")
    })
    .await;
}

#[tokio::test]
async fn the_durability_is_that_of_the_settings_now() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let shown = async || store.describe(soon()).await.expect("a description").capabilities.durability;
    assert_eq!(shown().await, Durability::D0);
    let settings = [
        (["appendonly", "yes"], Durability::D1),
        (["appendfsync", "always"], Durability::D2),
        (["no-appendfsync-on-rewrite", "yes"], Durability::D1),
    ];
    for ([name, value], durability) in settings {
        server.run(&["CONFIG", "SET", name, value]).expect("set");
        assert_eq!(shown().await, durability, "{name} {value}");
    }
    let location = store.describe(soon()).await.expect("a description").location;
    assert!(location.ends_with("?namespace=leasehold"), "{location}");
}
