//! How a server is reached, or not: TLS, names that are looked up, names that we give ourselves.

use std::time::Duration;

use leasehold_core::{Backend, ErrorKind};
use leasehold_mongo::mongodb::bson::{Bson, Document, doc};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;
use tokio::time::Instant;

use crate::bench::{SUCCEED, add, claim, fresh, jobs, set_up, settle, soon};

/// How long a server may be looked for that cannot be reached.
const BOUND: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_whom_the_right_authority_vouches_for_and_with_nobody_else() {
    let server = Server::over_tls().expect("a server");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    add(&store, jobs(1)).await;
    let lease = claim(&store, 1).await.jobs.remove(0);
    settle(&store, &lease, &SUCCEED).await;
    let certificates = server.certificates().expect("certificates");
    let address = format!(
        "mongodb://ann:hunter2@127.0.0.1:{}/?serverSelectionTimeoutMS=1500",
        server.nodes()[0].port()
    );
    let stranger = format!("{address}&tls=true&tlsCAFile={}", certificates.stranger().display());
    for (url, why) in [
        (stranger, "certificate"),
        // The authorities that the world trusts have not signed it either.
        (format!("{address}&tls=true"), "certificate"),
        (address.clone(), ""),
    ] {
        let begun = Instant::now();
        let error = Mongo::connect(&url).await.expect_err("no connection");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let told = format!("{error} {error:?}");
        assert!(told.contains(why) && !told.contains("hunter2"), "{told}");
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    }
    let missing = format!("{address}&tls=true&tlsCAFile=/nowhere/ca.pem");
    let error = Mongo::connect(&missing).await.expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_to_be_looked_up_is_and_its_absence_is_a_transient_error_in_time() {
    let begun = Instant::now();
    let error = Mongo::connect("mongodb+srv://ann:hunter2@no-such-cluster.example.invalid/db").await;
    let error = error.expect_err("no such name");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let told = format!("{error} {error:?}");
    assert!(told.contains("resolve") && !told.contains("hunter2"), "{told}");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_sees_by_name_who_is_connected() {
    let server = Server::own(1).expect("a server");
    let named = format!("{}&appName=indexer", server.url());
    for (url, name) in [(server.url().to_owned(), "leasehold"), (named, "indexer")] {
        let store = Mongo::connect(&url).await.expect("a store");
        store.now(soon()).await.expect("the hour");
        let all = doc! {"currentOp": true, "$all": true};
        let seen = server.nodes()[0].run(all).await.expect("what goes on");
        let seen = seen.get_array("inprog").expect("a list");
        let names: Vec<&str> = seen
            .iter()
            .filter_map(Bson::as_document)
            .filter_map(|op: &Document| op.get_str("appName").ok())
            .collect();
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_on_which_nobody_listens_is_a_transient_error_in_time() {
    let begun = Instant::now();
    let error = Mongo::connect("mongodb://ann:hunter2@127.0.0.1:1/").await.expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}
