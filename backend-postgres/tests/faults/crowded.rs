//! Queues in which much stands in the way: full limit keys, other kinds, what has ended.

use std::time::Duration;

use leasehold_core::backend::{Claim, KindRule, Prune, Verdict};
use leasehold_core::{Backend, Keep, NewJob, Reason};
use leasehold_postgres::Config;
use leasehold_test_servers::Postgres as Server;
use tokio::time::Instant;

use crate::bench::{
    SUCCEED, add, asking, claim, connection, counts, ids, job, jobs, number, run, set_up, settle, soon,
    store, until,
};

fn limited(n: usize, key: &str, max: u32) -> Vec<NewJob> {
    (0..n).map(|_| job().limit(key.parse().expect("a key"), max)).collect()
}

/// The quickest of some claims of this many jobs, each given back.
async fn quickest(
    store: &leasehold_postgres::Postgres,
    request: impl Fn() -> Claim,
    wanted: usize,
) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let begun = Instant::now();
        let given = store.claim(soon(), request()).await.expect("a claim").jobs;
        best = best.min(begun.elapsed());
        assert_eq!(given.len(), wanted);
        let release = Verdict::Release { reason: Reason::Released, delay: Duration::ZERO };
        settle(store, &given, &release).await;
    }
    best
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_key_with_thousands_waiting_holds_up_nobody() {
    let (store, ..) = store().await;
    add(&store, jobs(5)).await;
    let alone = quickest(&store, || asking(5), 5).await;
    // They stand before the others, which are enqueued later.
    let leases = claim(&store, 5).await.jobs;
    settle(&store, &leases, &SUCCEED).await;
    for _ in 0..3 {
        add(&store, limited(7_000, "full", 2)).await;
    }
    assert_eq!(claim(&store, 100).await.jobs.len(), 2);
    let free = add(&store, jobs(5)).await;
    let beside = quickest(&store, || asking(5), 5).await;
    let other = add(&store, limited(3, "other", 2)).await;
    let given = claim(&store, 100).await.jobs;
    assert_eq!(ids(&given), [&free[..], &other[..2]].concat());
    assert!(beside < alone * 8 + Duration::from_millis(20), "alone {alone:?}, beside a full key {beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_and_what_has_ended_cost_a_claim_nothing() {
    let (store, ..) = store().await;
    let wanted = || Claim { kinds: KindRule::Only(["mine".parse().expect("a name")].into()), ..asking(5) };
    add(
        &store,
        (0..5).map(|_| NewJob::new("mine".parse().expect("a name"), b"{}".to_vec().into())).collect(),
    )
    .await;
    let alone = quickest(&store, wanted, 5).await;
    for _ in 0..3 {
        add(&store, jobs(7_000)).await;
        let leases = store.claim(
            soon(),
            Claim { kinds: KindRule::Only(["work".parse().expect("a name")].into()), ..asking(5_000) },
        );
        settle(&store, &leases.await.expect("a claim").jobs, &SUCCEED).await;
    }
    let beside = quickest(&store, wanted, 5).await;
    assert!(beside < alone * 8 + Duration::from_millis(20), "alone {alone:?}, beside others {beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_jobs_own_limit_counts_and_order_is_kept() {
    let (store, ..) = store().await;
    let with = |max: u32| limited(1, "key", max).remove(0);
    // The first runs; the second may not run beside it, the third may, and the last is beyond three.
    let added = add(&store, vec![with(1), with(1), with(2), job(), with(3), with(3)]).await;
    let given = claim(&store, 10).await.jobs;
    assert_eq!(ids(&given), [added[0], added[2], added[3], added[4]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_claims_leave_behind_is_vacuumed_without_the_servers_own_vacuums() {
    let server = Server::own_with(&["autovacuum=off"], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let mut other = connection(server.url()).await;
    let dead =
        "SELECT count(*) FROM pg_stat_user_tables WHERE relname IN ('waiting', 'slots') AND vacuum_count > 0";
    assert_eq!(number(&mut other, dead).await, 0);
    for _ in 0..6 {
        add(&store, jobs(4_000)).await;
        let leases = claim(&store, 4_000).await.jobs;
        settle(&store, &leases, &SUCCEED).await;
    }
    until("both are vacuumed", async || number(&mut other, dead).await == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_empty_when_they_were_measured_are_not_walked_over() {
    let server = Server::own_with(&["autovacuum=off"], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let mut other = connection(server.url()).await;
    for _ in 0..10 {
        add(&store, jobs(100)).await;
        settle(&store, &claim(&store, 100).await.jobs, &SUCCEED).await;
    }
    run(&mut other, "DELETE FROM leasehold.jobs; DELETE FROM leasehold.ended").await;
    add(&store, vec![job().delay(Duration::from_hours(1))]).await;
    run(&mut other, "VACUUM (ANALYZE, TRUNCATE OFF)").await;
    add(&store, jobs(4_000)).await;
    let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname IN ('jobs', 'waiting', 'claims')";
    let before = number(&mut other, read).await;
    for _ in 0..10 {
        settle(&store, &claim(&store, 10).await.jobs, &SUCCEED).await;
    }
    // What a session has read is told once a second, when it does something.
    until("what was read is told", async || {
        counts(&store).await;
        number(&mut other, read).await > before
    })
    .await;
    let per_job = (number(&mut other, read).await - before) / 100;
    assert!(per_job < 200, "{per_job} entries read for each job");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_not_kept_leave_room_for_those_that_come() {
    let server = Server::own_with(&["autovacuum=off"], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let mut other = connection(server.url()).await;
    let through = async || {
        add(&store, jobs(8_000).into_iter().map(|job| job.keep(Keep::For(Duration::ZERO))).collect()).await;
        let leases = claim(&store, 8_000).await.jobs;
        settle(&store, &leases, &SUCCEED).await;
        let prune = Prune { limit: 10_000, workers_after: Duration::from_hours(1) };
        until("they are removed", async || store.prune(soon(), prune).await.expect("pruned").jobs > 0).await;
    };
    let vacuums = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'jobs'";
    until("jobs are vacuumed", async || {
        through().await;
        number(&mut other, vacuums).await > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nearly_all_that_is_claimed_and_settled_stays_on_its_page() {
    let server = Server::own_with(&["autovacuum=off"], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let mut other = connection(server.url()).await;
    let long = |n: usize| NewJob::new("work".parse().expect("a name"), vec![b'x'; n].into());
    for payload in [70, 100, 500] {
        add(&store, (0..1_000).map(|_| long(payload)).collect()).await;
    }
    for _ in 0..3 {
        settle(&store, &claim(&store, 1_000).await.jobs, &SUCCEED).await;
    }
    let of_jobs = |counted: &str| format!("SELECT {counted} FROM pg_stat_user_tables WHERE relname = 'jobs'");
    until("all is counted", async || {
        counts(&store).await;
        number(&mut other, of_jobs("n_tup_upd")).await == 6_000
    })
    .await;
    let moved = number(&mut other, of_jobs("n_tup_upd - n_tup_hot_upd")).await;
    assert!(moved < 200, "{moved} of 6,000 updates were added to the indexes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_closed_leaves_nothing_at_work() {
    let (store, schema, mut other) = store().await;
    let endless = format!(
        "CREATE OR REPLACE FUNCTION {schema}.look_through_all(p_hour bigint) RETURNS void LANGUAGE sql AS
            'SELECT pg_sleep(3600)'"
    );
    run(&mut other, endless).await;
    for _ in 0..5 {
        add(&store, jobs(4_000)).await;
        assert_eq!(claim(&store, 4_000).await.jobs.len(), 4_000);
    }
    let at_work = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{schema}%look_through_all(%'
        AND state = 'active' AND pid <> pg_backend_pid()"
    );
    until("somebody looks through claims", async || number(&mut other, at_work.clone()).await == 1).await;
    store.close().await;
    until("nobody does", async || number(&mut other, at_work.clone()).await == 0).await;
}
