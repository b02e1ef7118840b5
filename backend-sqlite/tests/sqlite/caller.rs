//! Enqueuing in the caller's own transaction (clause P5).

use leasehold_core::backend::EnqueueAnswer;
use leasehold_core::{ErrorKind, Payload, State, UniqueKey, UniqueScope};
use sqlx::{Connection, Executor};

use crate::bench::{Bench, claim, counts, jobs};

#[tokio::test]
async fn jobs_are_there_if_and_only_if_the_caller_commits() {
    let bench = Bench::new().await;
    let mut theirs = bench.connection().await;
    theirs.execute("CREATE TABLE orders (x)").await.unwrap();
    for (commit, expected) in [(false, 0), (true, 10)] {
        let mut transaction = theirs.begin_with("BEGIN IMMEDIATE").await.unwrap();
        transaction.execute("INSERT INTO orders VALUES (1)").await.unwrap();
        let answers = bench.store.enqueue_in(&mut transaction, jobs(10)).await.unwrap();
        assert!(answers.iter().all(leasehold_core::backend::Enqueued::is_created));
        assert_eq!(counts(&bench.store).await.total(), 0, "nobody else sees them yet");
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let orders: i64 =
            sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&mut theirs).await.unwrap();
        assert_eq!((counts(&bench.store).await.of(State::Queued), orders), (expected, i64::from(commit)));
    }
    assert_eq!(claim(&bench.store, 100).await.jobs.len(), 10);
}

#[tokio::test]
async fn the_rules_are_those_of_every_enqueue() {
    let bench = Bench::new().await;
    let mut theirs = bench.connection().await;
    let key = UniqueKey::new("k").unwrap();
    let unique: Vec<_> =
        jobs(2).into_iter().map(|job| job.unique(key.clone(), UniqueScope::UntilFinished)).collect();
    let answers = bench.store.enqueue_in(&mut theirs, unique.clone()).await.unwrap();
    assert!(matches!(answers[1].answer, EnqueueAnswer::Held) && answers[1].job == unique[0].id);
    let mut large = jobs(1);
    large[0].payload = Payload::from(vec![0; 2 << 20]);
    let error = bench.store.enqueue_in(&mut theirs, large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_call_that_fails_leaves_nothing_also_without_a_transaction() {
    let bench = Bench::new().await;
    let mut theirs = bench.connection().await;
    let sql = "CREATE TRIGGER no BEFORE INSERT ON leasehold_payloads BEGIN SELECT raise(ABORT, 'no'); END";
    theirs.execute(sql).await.unwrap();
    bench.store.enqueue_in(&mut theirs, jobs(3)).await.unwrap_err();
    assert_eq!(counts(&bench.store).await.total(), 0);
    theirs.execute("DROP TRIGGER no").await.unwrap();
    assert_eq!(bench.store.enqueue_in(&mut theirs, jobs(3)).await.unwrap().len(), 3);
    assert_eq!(claim(&bench.store, 10).await.jobs.len(), 3);
}
