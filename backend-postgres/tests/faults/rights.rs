//! Users who may not do everything.

use leasehold_core::{Backend, ErrorKind};
use leasehold_postgres::{Config, Postgres};

use crate::bench::{SERVER, SUCCEED, add, claim, fresh, jobs, run, set_up, settle, soon, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_denied_and_one_with_a_schema_of_its_own_is_enough() {
    let (_, theirs, mut other) = store().await;
    let (user, schema) = (fresh(), fresh());
    run(&mut other, format!("CREATE ROLE {user} LOGIN")).await;
    let url = SERVER.url_of(&user);
    // It may neither make a schema nor read somebody else's.
    let narrow = Postgres::with(Config::new(&url).schema(&schema)).await.expect("a store");
    let error = narrow.setup(soon()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!error.is_transient());
    let error = Postgres::with(Config::new(&url).schema(&theirs)).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    // A schema that somebody made for it is all that it needs.
    run(&mut other, format!("CREATE SCHEMA {schema} AUTHORIZATION {user}")).await;
    let store = set_up(Config::new(&url).schema(&schema)).await;
    add(&store, jobs(1)).await;
    let leases = claim(&store, 1).await.jobs;
    settle(&store, &leases, &SUCCEED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_says_so() {
    let (store, schema, mut other) = store().await;
    let user = fresh();
    run(
        &mut other,
        format!(
            "CREATE ROLE {user} LOGIN SUPERUSER; ALTER ROLE {user} SET default_transaction_read_only = on"
        ),
    )
    .await;
    let reader = Postgres::with(Config::new(SERVER.url_of(&user)).schema(&schema)).await.expect("a store");
    let error = reader
        .enqueue(soon(), leasehold_core::backend::Enqueue { jobs: jobs(1) })
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("takes no writes"), "{error}");
    assert_eq!(crate::bench::counts(&store).await.total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_isolation_of_the_users_own_does_not_reach_our_calls() {
    let (_, schema, mut other) = store().await;
    let user = fresh();
    let set = format!(
        "CREATE ROLE {user} LOGIN SUPERUSER; ALTER ROLE {user} SET default_transaction_isolation = 'serializable'"
    );
    run(&mut other, set).await;
    let store = set_up(Config::new(SERVER.url_of(&user)).schema(&schema)).await;
    add(&store, (0..20).map(|_| crate::bench::job().limit("one".parse().expect("a key"), 3)).collect()).await;
    let calls = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { claim(&store, 2).await.jobs.len() })
    });
    let mut given = 0;
    for call in calls.collect::<Vec<_>>() {
        given += call.await.expect("a claim");
    }
    assert_eq!(given, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_database_or_user_is_told_and_no_password_shown() {
    for (url, kind) in [
        (format!("{}?dbname=nowhere", SERVER.url()), ErrorKind::Config),
        (SERVER.url_of("nobody:hunter2"), ErrorKind::Denied),
    ] {
        let error = Postgres::connect(&url).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
