//! Leases of one claim stand in one row, which is looked through when the first of them may have run out.

use std::time::Duration;

use leasehold_core::Backend;
use leasehold_core::backend::{Expired, Renew, Renewal, Renewed};
use leasehold_core::{JobId, LeasedJob};
use leasehold_postgres::Postgres;
use leasehold_postgres::sqlx::PgConnection;

use crate::bench::{SUCCEED, add, claim, ids, job, jobs, number, settle, soon, store, until};

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
