//! Leases of one claim stand in one row, which is looked through when the first of them may have run out.

use std::time::Duration;

use leasehold_core::backend::{Expired, Renew, Renewal, Renewed};
use leasehold_core::{Backend, Deadline};
use leasehold_core::{JobId, LeasedJob};
use leasehold_postgres::Postgres;
use leasehold_postgres::sqlx::PgConnection;

use crate::bench::{SUCCEED, add, claim, ids, job, jobs, number, run, settle, soon, store, until};

const SHORT: Duration = Duration::from_millis(50);

async fn expired(store: &Postgres) -> Vec<JobId> {
    let expired = store.expired(soon(), Expired { limit: 9 }).await.expect("leases");
    expired.iter().map(|lease| lease.job).collect()
}

async fn rows(conn: &mut PgConnection, schema: &str, which: &str) -> i64 {
    number(conn, format!("SELECT count(*) FROM {schema}.claims WHERE {which}")).await
}

/// Adds jobs with short leases, and claims them all at once.
async fn claimed(store: &Postgres, count: usize) -> Vec<LeasedJob> {
    add(store, (0..count).map(|_| job().lease(SHORT)).collect()).await;
    claim(store, count).await.jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_not_looked_through_again_once_nothing_of_it_runs() {
    let (store, schema, mut other) = store().await;
    let leases = claimed(&store, 3).await;
    settle(&store, &leases, &SUCCEED).await;
    assert_eq!(rows(&mut other, &schema, "first_end IS NOT NULL").await, 1);
    until("it was looked through", async || {
        assert_eq!(expired(&store).await, []);
        rows(&mut other, &schema, "first_end IS NULL").await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_claim_whose_jobs_went_their_own_ways_each_lost_lease_is_found() {
    let (store, schema, mut other) = store().await;
    let leases = claimed(&store, 3).await;
    let [settled, renewed, lost] = &ids(&leases)[..] else { panic!("three jobs") };
    settle(&store, &leases[..1], &SUCCEED).await;
    let longer = Renewal { job: *renewed, token: leases[1].token, lease: 20 * SHORT, progress: None };
    let answers = store.renew(soon(), Renew { renewals: vec![longer] }).await.expect("renewed");
    assert!(matches!(answers[..], [Renewed::Held { .. }]));
    until("the first is lost", async || expired(&store).await == [*lost]).await;
    // It stays the first of the claim until somebody takes it back.
    assert_eq!(expired(&store).await, [*lost]);
    until("both are lost", async || expired(&store).await == [*lost, *renewed]).await;
    assert_eq!(rows(&mut other, &schema, "first_end IS NOT NULL").await, 1);
    assert!(!expired(&store).await.contains(settled));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_nobody_looks_for_are_looked_through_by_who_claims() {
    let (store, schema, mut other) = store().await;
    let leases = claimed(&store, 3).await;
    settle(&store, &leases, &SUCCEED).await;
    for _ in 0..3 {
        add(&store, jobs(8_000)).await;
        let leases = claim(&store, 8_000).await.jobs;
        settle(&store, &leases, &SUCCEED).await;
    }
    until("the first was looked through", async || rows(&mut other, &schema, "first_end IS NULL").await > 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_whose_jobs_are_settled_keep_no_lost_lease_from_being_found() {
    let (store, schema, mut other) = store().await;
    let many = format!(
        "INSERT INTO {schema}.claims SELECT gen_random_uuid(), 1, 1, ARRAY[gen_random_uuid()] FROM generate_series(1, 30000)"
    );
    run(&mut other, many).await;
    let lost = ids(&claimed(&store, 1).await);
    let over = format!("SELECT count(*) FROM {schema}.jobs WHERE lease_until < {schema}.hour()");
    until("its lease has run out", async || number(&mut other, over.clone()).await == 1).await;
    assert_eq!(expired(&store).await, lost);
    assert_eq!(
        rows(&mut other, &schema, "first_end IS NOT NULL").await,
        1,
        "the others are not looked through again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_forgotten_by_who_claims() {
    let (store, schema, mut other) = store().await;
    add(&store, (0..2_000).map(|_| job()).collect()).await;
    let many = format!(
        "INSERT INTO {schema}.claims SELECT gen_random_uuid(), 1, NULL, ARRAY[gen_random_uuid()] FROM generate_series(1, 3000)"
    );
    run(&mut other, many).await;
    until("some are forgotten", async || {
        assert_eq!(claim(&store, 1).await.jobs.len(), 1);
        rows(&mut other, &schema, "at = 1").await < 3_000
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_lost_is_told_though_somebody_holds_the_job_locked() {
    let (store, schema, mut other) = store().await;
    let leases = claimed(&store, 2).await;
    settle(&store, &leases[..1], &SUCCEED).await;
    run(&mut other, format!("BEGIN; SELECT FROM {schema}.jobs FOR UPDATE")).await;
    let lost = Renewal { job: leases[0].job.id, token: leases[0].token, lease: SHORT, progress: None };
    let renewed = store.renew(Deadline::after(20 * SHORT), Renew { renewals: vec![lost] }).await;
    assert_eq!(renewed.expect("an answer"), [Renewed::Lost]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_looked_for_while_others_look_and_never_finish() {
    let (store, schema, mut other) = store().await;
    let lost = ids(&claimed(&store, 2).await);
    let over = format!("SELECT count(*) FROM {schema}.jobs WHERE lease_until < {schema}.hour()");
    until("its lease has run out", async || number(&mut other, over.clone()).await == 2).await;
    run(&mut other, format!("BEGIN; SELECT FROM {schema}.expired(NULL, 9)")).await;
    let found = expired(&store).await;
    assert!(found.len() == 2 && lost.iter().all(|job| found.contains(job)), "{found:?}");
}
