//! Users who may not do everything.

use leasehold_core::backend::Durability;
use leasehold_core::{Backend, ErrorKind};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;

use crate::bench::{SUCCEED, add, claim, job, set_up, settle, soon};

const SECRET: &str = "hunter2";
/// The rights that the guide names.
const ENOUGH: &str = "~{leasehold}:* &{leasehold}:* +@read +@write +@scripting +@connection +@pubsub +@transaction \
                      -@dangerous +info +config|get +time";

/// Makes a user with these rights, and answers its URL.
fn user(server: &Server, name: &str, rights: &str) -> String {
    let password = format!(">{SECRET}");
    let command = ["ACL", "SETUSER", name, "on", &password].into_iter().chain(rights.split_whitespace());
    server.run(&command.collect::<Vec<_>>()).expect("a user");
    server.url_of(name, SECRET)
}

#[tokio::test]
async fn the_rights_of_the_guide_are_enough() {
    let server = Server::own().expect("a server");
    let store = set_up(Config::new(user(&server, "jobs", ENOUGH))).await;
    let events = store.watch(soon(), leasehold_core::backend::Watch { queues: None, logs: true }).await;
    drop(events.expect("a stream"));
    add(&store, vec![job()]).await;
    let lease = claim(&store, 1).await.jobs.remove(0);
    settle(&store, &lease, &SUCCEED).await;
    assert_eq!(store.describe(soon()).await.expect("a description").capabilities.durability, Durability::D2);
}

#[tokio::test]
async fn a_user_without_rights_is_denied_and_no_password_is_shown() {
    let server = Server::own().expect("a server");
    let elsewhere = ENOUGH.replace("leasehold", "elsewhere");
    for (name, rights) in [
        ("nothing", "+ping"),
        ("reader", "~* &* +@read +@scripting +@connection +info"),
        ("elsewhere", &elsewhere),
    ] {
        let url = user(&server, name, rights);
        let store = Redis::connect(&url).await.expect("a store");
        let error = store.setup(soon()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error:?}");
        assert!(error.to_string().contains("docs/guide/redis.md"), "{error}");
        assert!(!format!("{error} {error:?} {store:?}").contains(SECRET), "{error:?}");
    }
    for wrong in [server.url_of("nothing", "hunter3"), server.url_of("nobody", "hunter3")] {
        let error = Redis::connect(&wrong).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter3"), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_keeps_its_settings_to_itself_is_taken_for_the_weaker_one() {
    let server = Server::own().expect("a server");
    let store = set_up(Config::new(user(&server, "hidden", &ENOUGH.replace("+config|get", "")))).await;
    assert_eq!(store.describe(soon()).await.expect("a description").capabilities.durability, Durability::D1);
    server.run(&["CONFIG", "SET", "maxmemory", "100mb"]).expect("set");
    server.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("set");
    assert_eq!(store.setup(soon()).await.expect_err("refused").kind(), ErrorKind::Config);
}
