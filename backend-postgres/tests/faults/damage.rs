//! Rows and tables that are not as they should be.

use leasehold_core::backend::{Action, Amend, AmendAnswer, Filter, List, Order, Select};
use leasehold_core::{Backend, ErrorKind, State};
use leasehold_postgres::{Config, Postgres};

use crate::bench::{
    LEASE, SERVER, SUCCEED, add, again, claim, connection, counts, find, fresh, ids, jobs, number, run,
    set_up, settle, soon, store,
};

/// What may be wrong with a row that the server itself does not refuse.
const DAMAGES: [&str; 8] = [
    "options = '{'",
    "options = '{\"retry\":7}'",
    "reason = 'because'",
    "kind = E'a\\nb'",
    "history = '{nonsense}'",
    "progress = '['",
    "attempt = -7",
    "crashes = -1",
];

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_set_aside_and_stop_no_other() {
    let (store, schema, mut other) = store().await;
    let added = add(&store, jobs(DAMAGES.len() + 1)).await;
    for (damage, id) in DAMAGES.iter().zip(&added) {
        run(&mut other, format!("UPDATE {schema}.jobs SET {damage} WHERE id = '{id}'")).await;
    }
    let page = List { filter: Filter::default(), order: Order::OldestFirst, after: None, limit: 100 };
    let page = store.list(soon(), page).await.expect("a page");
    assert_eq!((page.jobs.len(), page.unreadable.len()), (1, DAMAGES.len()));
    let claimed = claim(&store, 100).await;
    // A reason goes with the claim that sets it anew.
    assert!(ids(&claimed.jobs).contains(&added[DAMAGES.len()]));
    assert_eq!(claimed.jobs.len() + claimed.set_aside.len(), added.len(), "{:?}", claimed.set_aside);
    assert!(claimed.set_aside.len() >= DAMAGES.len() - 1, "{:?}", claimed.set_aside);
    settle(&store, &claimed.jobs, &SUCCEED).await;
    let of = counts(&store).await;
    assert_eq!((of.of(State::Failed) as usize, of.total() as usize), (claimed.set_aside.len(), added.len()));
    // And an operator can remove them.
    let broken: Vec<_> = claimed.set_aside.iter().filter_map(|aside| aside.job).collect();
    let amend = Amend { select: Select::Ids(vec![broken[0]]), action: Action::Delete, preview: false };
    assert_eq!(store.amend(soon(), amend).await.expect("amended").jobs[0].1, AmendAnswer::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_row_that_is_damaged_is_set_aside_when_its_lease_has_run_out() {
    let (store, schema, mut other) = store().await;
    add(&store, jobs(2)).await;
    let leases = claim(&store, 2).await.jobs;
    let (bad, good) = (leases[0].job.id, leases[1].job.id);
    run(
        &mut other,
        format!("UPDATE {schema}.jobs SET lease_until = 7; UPDATE {schema}.claims SET first_end = 7"),
    )
    .await;
    run(&mut other, format!("UPDATE {schema}.jobs SET options = '{{' WHERE id = '{bad}'")).await;
    let expired = leasehold_core::backend::Expired { limit: 10 };
    let lost = store.expired(soon(), expired).await.expect("leases");
    assert_eq!(lost.iter().map(|lease| lease.job).collect::<Vec<_>>(), [good]);
    assert_eq!(counts(&store).await.of(State::Failed), 1);
    let failed = format!("SELECT count(*) FROM {schema}.jobs WHERE reason = 'unreadable' AND claim IS NULL");
    assert_eq!(number(&mut other, failed).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_make_are_refused_by_a_message_that_says_so() {
    let mut other = connection(SERVER.url()).await;
    let open = |schema: &str| Config::new(SERVER.url()).schema(schema);
    for (tables, says) in [
        ("CREATE TABLE jobs (id int)", "not ours"),
        ("CREATE TABLE jobs (id int); CREATE TABLE meta (a int)", "not ours"),
        (
            "CREATE TABLE jobs (id int); CREATE TABLE meta (version text); INSERT INTO meta VALUES ('x')",
            "not ours",
        ),
        (
            "CREATE TABLE jobs (id int); CREATE TABLE meta (version int); INSERT INTO meta VALUES (99)",
            "newer program",
        ),
    ] {
        let schema = fresh();
        run(
            &mut other,
            format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {tables}; RESET search_path"),
        )
        .await;
        let error = Postgres::with(open(&schema)).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    // A store that becomes one of a newer version while it is used, and one that was never set up.
    let schema = fresh();
    let store = Postgres::with(open(&schema)).await.expect("a store");
    let error = store.claim(soon(), crate::bench::asking(1)).await.expect_err("not set up");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("setup"), "{error}");
    store.setup(soon()).await.expect("set up");
    run(&mut other, format!("UPDATE {schema}.meta SET version = 99")).await;
    assert_eq!(store.setup(soon()).await.expect_err("refused").kind(), ErrorKind::Incompatible);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_clients_may_set_up_at_once_under_any_name() {
    for schema in ["Jobs of \"Ann\"", "sch'ma; DROP SCHEMA public; --", "näme.with.dots", "select"] {
        let config = || Config::new(SERVER.url()).schema(schema);
        let openings = (0..6).map(|_| tokio::spawn(set_up(config())));
        for opening in openings.collect::<Vec<_>>() {
            let store = opening.await.expect("it is set up");
            add(&store, jobs(1)).await;
        }
        let store = set_up(config()).await;
        let leases = claim(&store, 100).await.jobs;
        assert_eq!(leases.len(), 6);
        settle(&store, &leases, &SUCCEED).await;
        assert_eq!(find(&store, leases[0].job.id).await.state, State::Succeeded);
        let events = store.watch(soon(), leasehold_core::backend::Watch::default()).await;
        assert!(events.is_ok(), "events of {schema}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_changed_under_us_is_used_again() {
    let (store, schema, mut other) = store().await;
    let added = add(&store, jobs(3)).await;
    find(&store, added[0]).await;
    run(&mut other, format!("ALTER TABLE {schema}.jobs ADD COLUMN of_tomorrow int DEFAULT 3")).await;
    let find = || leasehold_core::backend::Find { ids: added.clone() };
    let found = again(async || store.find(soon(), find()).await).await;
    assert!(found.iter().all(Option::is_some));
    let asking = leasehold_core::backend::Claim { lease: LEASE, ..crate::bench::asking(3) };
    let given = again(async || store.claim(soon(), asking.clone()).await).await;
    assert_eq!(given.jobs.len(), 3);
}
