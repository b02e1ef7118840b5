//! What happens between two statements of a call, and behind transactions that callers keep open.

use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Answer, Enqueue, Expired, Find, Prune, Recover, Renew, Renewal, Renewed,
    Select, Settlement, Verdict,
};
use leasehold_core::{
    Backend, Deadline, Due, ErrorKind, JobId, Keep, Kind, NewJob, Reason, State, UniqueScope,
};
use leasehold_postgres::sqlx::PgConnection;

use crate::bench::{
    SERVER, SUCCEED, add, asking, claim, connection, find, ids, job, number, run, settle, settling, soon,
    store, until,
};

const MILLISECOND: Duration = Duration::from_millis(1);

fn keyed(scope: UniqueScope) -> NewJob {
    job().unique("key".parse().expect("a key"), scope)
}

/// How many wait for a lock while they run such a statement of ours.
async fn waiting(conn: &mut PgConnection, schema: &str, statement: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{statement}%'
            AND query LIKE '%{schema}%'"
    );
    number(conn, sql).await
}

/// Waits until the key is only held by a job that may lose it.
async fn period_is_over(conn: &mut PgConnection, schema: &str) {
    let over = format!("SELECT count(*) FROM {schema}.jobs WHERE unique_until < {schema}.hour()");
    until("the period is over", async || number(conn, over.clone()).await == 1).await;
}

/// Waits until so many leases have run out.
async fn leases_are_over(conn: &mut PgConnection, schema: &str, n: i64) {
    let over = format!("SELECT count(*) FROM {schema}.jobs WHERE lease_until < {schema}.hour()");
    until("the leases have run out", async || number(conn, over.clone()).await == n).await;
}

/// Makes the next number that a session rolls one at which it tidies up.
async fn rolls_low(conn: &mut PgConnection) {
    for seed in 0..1_000 {
        let seed = f64::from(seed) / 1_000.0;
        let roll = format!("SELECT (random() * 1000)::bigint FROM (SELECT setseed({seed}) OFFSET 0) AS s");
        if number(conn, roll).await < 9 {
            run(conn, format!("SELECT setseed({seed})")).await;
            return;
        }
    }
    panic!("no seed does it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_have_been_taken_in_is_there_though_its_key_came_free_meanwhile() {
    let (store, schema, mut other) = store().await;
    add(&store, vec![keyed(UniqueScope::UntilFinished)]).await;
    let leases = claim(&store, 1).await.jobs;
    // An enqueue tidies up now and then, after it has looked at who holds its key. Such a one waits here.
    run(&mut other, format!("BEGIN; LOCK TABLE {schema}.claims IN EXCLUSIVE MODE")).await;
    let enqueueing = {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let jobs = vec![keyed(UniqueScope::UntilFinished)];
                let answers = store.enqueue(soon(), Enqueue { jobs }).await.expect("answers");
                if answers[0].is_created() {
                    return answers[0].job;
                }
            }
        })
    };
    let mut third = connection(SERVER.url()).await;
    until("one tidies up", async || waiting(&mut third, &schema, "SELECT n, holder, at").await == 1).await;
    store.settle_in(&mut other, settling(&leases, &SUCCEED).settlements).await.expect("settled");
    run(&mut other, "COMMIT").await;
    let created = enqueueing.await.expect("an answer");
    let found = store.find(soon(), Find { ids: vec![created] }).await.expect("an answer");
    assert!(found[0].is_some(), "told to have been taken in, and not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeue_takes_no_key_away_from_whoever_got_it_first() {
    let (store, schema, mut other) = store().await;
    let ended = add(&store, vec![keyed(UniqueScope::UntilFinished)]).await;
    let leases = claim(&store, 1).await.jobs;
    settle(&store, &leases, &SUCCEED).await;
    // So a requeue may look who holds the key, and may not write yet.
    run(&mut other, format!("BEGIN; LOCK TABLE {schema}.jobs IN SHARE MODE")).await;
    let requeueing = {
        let (store, select) = (store.clone(), Select::Ids(ended.clone()));
        let amend = Amend { select, action: Action::Requeue { due: Due::Now }, preview: false };
        tokio::spawn(async move { store.amend(soon(), amend).await })
    };
    let mut third = connection(SERVER.url()).await;
    until("it waits", async || waiting(&mut third, &schema, "UPDATE").await == 1).await;
    let first =
        store.enqueue_in(&mut other, vec![keyed(UniqueScope::UntilFinished)]).await.expect("taken in");
    assert!(first[0].is_created());
    run(&mut other, "COMMIT").await;
    let amended = requeueing.await.expect("a call").expect("an answer");
    assert_eq!(amended.jobs, [(ended[0], AmendAnswer::Held(first[0].job))]);
    assert_eq!(claim(&store, 9).await.jobs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_kind_is_given_out_while_somebody_holds_the_first() {
    let (store, schema, mut other) = store().await;
    let mut later = job().delay(MILLISECOND);
    later.kind = Kind::new("another").expect("a name");
    let added = add(&store, vec![job(), later]).await;
    until("both are due", async || find(&store, added[1]).await.state == State::Queued).await;
    run(&mut other, format!("BEGIN; SELECT FROM {schema}.jobs WHERE id = '{}' FOR UPDATE", added[0])).await;
    assert_eq!(ids(&claim(&store, 1).await.jobs), added[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_could_read_and_holds_by_now_is_not_set_aside() {
    let (store, schema, mut other) = store().await;
    let added = add(&store, vec![job().lease(MILLISECOND)]).await;
    let lost = claim(&store, 1).await.jobs;
    let damaged = format!("UPDATE {schema}.jobs SET lease = NULL, options = '{{' WHERE id = '{}'", added[0]);
    run(&mut other, damaged).await;
    leases_are_over(&mut other, &schema, 1).await;
    // Whoever looks for it finds that it cannot be read, and waits with that.
    run(&mut other, format!("BEGIN; SELECT FROM {schema}.jobs FOR UPDATE")).await;
    let looking = {
        let store = store.clone();
        tokio::spawn(async move { store.expired(soon(), Expired { limit: 9 }).await })
    };
    let mut third = connection(SERVER.url()).await;
    until("it waits", async || waiting(&mut third, &schema, "SELECT").await == 1).await;
    // Somebody who can read it takes it back and gives it out anew.
    let claimed = JobId::generate();
    let given = format!(
        "UPDATE {schema}.jobs SET options = '{{}}';
         SELECT FROM {schema}.settle(NULL, true, ARRAY['{0}']::uuid[], ARRAY[(SELECT claim FROM {schema}.jobs)], '{{1}}',
            '{{lease_expired}}', NULL, NULL, NULL, NULL, NULL);
         SELECT FROM {schema}.claim(NULL, '{claimed}', '{claimed}', '{{default}}', NULL, NULL, NULL, NULL, 32767::smallint, 1,
            60000, true, 1000);
         COMMIT",
        added[0]
    );
    run(&mut other, given).await;
    looking.await.expect("a call").expect("an answer");
    assert_eq!(settle(&store, &lost, &SUCCEED).await, [Answer::Lost]);
    let job = find(&store, added[0]).await;
    assert_eq!((job.state, job.reason), (State::Running, None), "its new holder has it no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_takes_over_a_key_keeps_no_other_lease_from_being_renewed() {
    let (store, schema, mut other) = store().await;
    add(&store, vec![keyed(UniqueScope::For(MILLISECOND)), job()]).await;
    let leases = claim(&store, 2).await.jobs;
    period_is_over(&mut other, &schema).await;
    run(&mut other, "BEGIN").await;
    store.enqueue_in(&mut other, vec![keyed(UniqueScope::For(MILLISECOND))]).await.expect("taken in");
    let renewal = |lease: &leasehold_core::LeasedJob| Renewal {
        job: lease.job.id,
        token: lease.token,
        lease: lease.lease,
        progress: None,
    };
    let renew = Renew { renewals: leases.iter().map(renewal).collect() };
    let until = async || find(&store, leases[1].job.id).await.lease_until.expect("it runs");
    let before = until().await;
    // Whether the one lease holds is not known before the caller is done; the other is extended all the same.
    let late = store.renew(Deadline::after(Duration::from_millis(500)), renew.clone()).await;
    assert_eq!(late.expect_err("no answer").kind(), ErrorKind::Unknown);
    assert!(until().await > before);
    run(&mut other, "COMMIT").await;
    let renewed = store.renew(soon(), renew).await.expect("renewed");
    assert!(renewed.iter().all(|renewed| matches!(renewed, Renewed::Held { .. })), "{renewed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_takes_over_a_key_keeps_nothing_else_from_being_pruned() {
    let (store, schema, mut other) = store().await;
    let brief = |job: NewJob| job.keep(Keep::For(Duration::ZERO));
    add(&store, vec![brief(keyed(UniqueScope::For(MILLISECOND))), brief(job()), brief(job())]).await;
    let leases = claim(&store, 3).await.jobs;
    settle(&store, &leases, &SUCCEED).await;
    period_is_over(&mut other, &schema).await;
    run(&mut other, "BEGIN").await;
    store.enqueue_in(&mut other, vec![keyed(UniqueScope::For(MILLISECOND))]).await.expect("taken in");
    let prune = Prune { limit: 10, workers_after: Duration::from_secs(60) };
    let pruned = store.prune(Deadline::after(Duration::from_secs(3)), prune).await.expect("pruned");
    assert_eq!(pruned.jobs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_transaction_does_not_fail_for_what_we_tidy_up() {
    let (store, schema, mut other) = store().await;
    for _ in 0..5 {
        add(&store, vec![job()]).await;
    }
    let leases = store.claim(soon(), asking(5)).await.expect("a claim").jobs;
    run(&mut other, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    number(&mut other, format!("SELECT count(*) FROM {schema}.jobs")).await;
    let mut third = connection(SERVER.url()).await;
    run(&mut third, format!("SELECT {schema}.tidy(0)")).await;
    rolls_low(&mut other).await;
    let settled = store.settle_in(&mut other, settling(&leases, &SUCCEED).settlements).await;
    assert_eq!(settled.expect("settled"), [Answer::Applied; 5]);
    run(&mut other, "COMMIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_never_commits_keeps_no_other_job_from_being_taken_back() {
    let (store, schema, mut other) = store().await;
    add(&store, vec![job().lease(MILLISECOND), job().lease(MILLISECOND)]).await;
    let leases = claim(&store, 2).await.jobs;
    run(&mut other, "BEGIN").await;
    store.settle_in(&mut other, settling(&leases[..1], &SUCCEED).settlements).await.expect("settled");
    let mut third = connection(SERVER.url()).await;
    leases_are_over(&mut third, &schema, 2).await;
    let verdict = Verdict::Retry { reason: Reason::LeaseExpired, delay: Duration::ZERO, queue: None };
    let expired = store.expired(soon(), Expired { limit: 9 }).await.expect("leases");
    let settlements = expired.iter().map(|lease| Settlement {
        job: lease.job,
        token: lease.token,
        verdict: verdict.clone(),
        failure: None,
    });
    let recover = Recover { settlements: settlements.collect() };
    let recovered = store.recover(Deadline::after(Duration::from_secs(3)), recover).await;
    assert!(recovered.is_ok(), "{recovered:?}");
    assert_eq!(find(&store, leases[1].job.id).await.state, State::Queued);
}
