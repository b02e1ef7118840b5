use std::collections::BTreeSet;

use leasehold_core::backend::{Counts, EnqueueAnswer};
use leasehold_core::{Store, UniqueKey, UniqueScope, Worker};
use leasehold_mongo::mongodb::ClientSession;

use super::*;

fn job(payload: Vec<u8>) -> NewJob {
    NewJob::new(Kind::new("work").expect("a name"), Payload::from(payload))
}

async fn begun(place: &Place) -> ClientSession {
    let mut session = place.store.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    session
}

async fn waiting(place: &Place) -> u64 {
    let counts = place.store.counts(Deadline::default(), Counts::default()).await.expect("counts");
    counts.iter().map(leasehold_core::backend::QueueCounts::total).sum()
}

#[tokio::test]
async fn many_jobs_come_with_the_commit_and_none_with_an_abort() {
    let place = Place::new().await;
    // More than one entry of the oplog holds.
    let jobs = || (0..1_000).map(|_| job(vec![7; 20 << 10])).collect::<Vec<_>>();
    for commit in [false, true] {
        let mut session = begun(&place).await;
        for half in jobs().chunks(500) {
            let answers = place.store.enqueue_in(&mut session, half.to_vec()).await.expect("answers");
            assert!(answers.iter().all(leasehold_core::backend::Enqueued::is_created));
        }
        assert_eq!(waiting(&place).await, 0, "jobs of a transaction that is still open");
        if commit {
            place.store.commit_and_wake(&mut session, [&QueueName::default()]).await.expect("committed");
        } else {
            session.abort_transaction().await.expect("aborted");
        }
        assert_eq!(waiting(&place).await, if commit { 1_000 } else { 0 });
    }
}

#[tokio::test]
async fn ids_and_unique_keys_are_respected_in_bulk() {
    let place = Place::new().await;
    let key = |i: usize| UniqueKey::new(format!("key {}", i % 300)).expect("a key");
    let unique = |i: usize| job(i.to_string().into()).unique(key(i), UniqueScope::UntilFinished);
    let known: Vec<NewJob> = (0..100).map(unique).collect();
    place.store.enqueue(Deadline::default(), Enqueue { jobs: known.clone() }).await.expect("taken in");
    let mut jobs = known.clone();
    jobs.extend((0..900).map(unique));
    let mut session = begun(&place).await;
    let answers = place.store.enqueue_in(&mut session, jobs.clone()).await.expect("answers");
    place.store.commit_and_wake(&mut session, []).await.expect("committed");
    let said = |wanted: fn(&EnqueueAnswer) -> bool| answers.iter().filter(|a| wanted(&a.answer)).count();
    assert_eq!(said(|answer| matches!(answer, EnqueueAnswer::Existing)), 100);
    assert_eq!(said(|answer| matches!(answer, EnqueueAnswer::Created)), 200);
    assert_eq!(said(|answer| matches!(answer, EnqueueAnswer::Held)), 700);
    let there: BTreeSet<JobId> = answers.iter().map(|answer| answer.job).collect();
    assert_eq!((there.len(), waiting(&place).await), (300, 300));
}

#[tokio::test]
async fn a_key_whose_period_is_over_is_free_inside_a_transaction_too() {
    let place = Place::new().await;
    let key = UniqueKey::new("key").expect("a key");
    let unique = |span| vec![job(Vec::new()).unique(key.clone(), UniqueScope::For(span))];
    let (short, long) = (Duration::from_millis(1), Duration::from_secs(3_600));
    place.store.enqueue(Deadline::default(), Enqueue { jobs: unique(short) }).await.expect("taken in");
    eventually("the period is over", async || {
        let mut session = begun(&place).await;
        let answers = place.store.enqueue_in(&mut session, unique(long)).await.expect("answers");
        let free = answers[0].is_created();
        session.abort_transaction().await.expect("aborted");
        free
    })
    .await;
    assert_eq!(waiting(&place).await, 1);
}

#[tokio::test]
async fn an_idle_worker_elsewhere_begins_right_after_the_commit() {
    let place = Place::new().await;
    let elsewhere = Store::new(place.again(|config| config).await);
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let handler = move || {
        let started = started.clone();
        async move {
            let _ = started.send(());
        }
    };
    // It polls so seldom that only an event wakes it in time.
    let worker = Worker::builder(&elsewhere)
        .queue("default")
        .poll(Duration::from_secs(3_600))
        .handle("work", handler)
        .build()
        .expect("a worker")
        .start();
    eventually("the worker watches", async || place.tails("leasehold_signals").await == 1).await;
    for _ in 0..3 {
        let mut session = begun(&place).await;
        place.store.enqueue_in(&mut session, vec![job(Vec::new())]).await.expect("answers");
        assert!(starts.try_recv().is_err(), "a job of a transaction that is still open was started");
        place.store.commit_and_wake(&mut session, [&QueueName::default()]).await.expect("committed");
        timeout(PATIENCE, starts.recv()).await.expect("the job starts").expect("the job starts");
    }
    worker.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_made_again() {
    let place = Place::new().await;
    let mut session = begun(&place).await;
    place.store.enqueue_in(&mut session, vec![job(Vec::new())]).await.expect("answers");
    // The driver itself makes it again only once.
    let lost = doc! {
        "failCommands": ["commitTransaction"], "appName": place.database.name(), "closeConnection": true,
    };
    let fault = doc! {"configureFailPoint": "failCommand", "mode": {"times": 3}, "data": lost};
    place.run_as_admin(fault).await;
    place.store.commit_and_wake(&mut session, [&QueueName::default()]).await.expect("committed");
    assert_eq!(waiting(&place).await, 1);
}
