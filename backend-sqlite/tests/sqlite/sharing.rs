use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use leasehold_core::backend::{Backend, Find};
use leasehold_core::{ErrorKind, JobId};
use leasehold_sqlite::Sqlite;
use sqlx::{Connection, SqliteConnection};

use crate::{claim, deadline, enqueue, jobs, store, succeed, total};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_may_set_up_one_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut setups = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let path = folder.path().join("jobs.db");
        setups.spawn(async move {
            let store = Sqlite::open(path).await?;
            store.setup(deadline()).await?;
            store.setup(deadline()).await?;
            enqueue(&store, jobs(10)).await
        });
    }
    while let Some(done) = setups.join_next().await {
        assert_eq!(done.unwrap().unwrap(), 10);
    }
    assert_eq!(total(&store(folder.path()).await).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_on_one_file_never_get_in_each_others_way() {
    let folder = tempfile::tempdir().unwrap();
    enqueue(&store(folder.path()).await, jobs(3_000)).await.unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let path = folder.path().to_path_buf();
        workers.spawn(async move {
            let store = store(&path).await;
            let mut mine = Vec::new();
            loop {
                let claimed = claim(&store, 20).await.jobs;
                if claimed.is_empty() {
                    return mine;
                }
                succeed(&store, &claimed).await;
                mine.extend(claimed.iter().map(|leased| leased.job.id));
            }
        });
    }
    let all: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (3_000, 3_000));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path()).await;
    enqueue(&first, jobs(100)).await.unwrap();
    let held = claim(&first, 10).await.jobs;
    drop(first);
    let again = store(folder.path()).await;
    assert_eq!((total(&again).await, claim(&again, 1_000).await.jobs.len()), (100, 90));
    succeed(&again, &held).await;
}

#[tokio::test]
async fn a_job_of_the_callers_transaction_is_there_only_if_it_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)").execute(&mut conn).await.unwrap();
    for commit in [false, true] {
        let new = jobs(3);
        let ids: Vec<JobId> = new.iter().map(|job| job.id).collect();
        let mut tx = conn.begin().await.unwrap();
        sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *tx).await.unwrap();
        let answers = store.enqueue_in(&mut tx, new).await.unwrap();
        assert!(answers.iter().all(leasehold_core::backend::Enqueued::is_created));
        assert_eq!(found(&store, &ids).await, 0, "seen before the commit");
        if commit {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        assert_eq!(found(&store, &ids).await, if commit { 3 } else { 0 });
    }
    let mut large = jobs(1);
    large[0].payload = vec![0; 2 << 20].into();
    let mut tx = conn.begin().await.unwrap();
    let error = store.enqueue_in(&mut tx, large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "input is checked on this way in, too");
}

/// How many of these jobs there are.
async fn found(store: &Sqlite, ids: &[JobId]) -> usize {
    let found = store.find(deadline(), Find { ids: ids.to_vec() }).await.unwrap();
    found.iter().filter(|job| job.is_some()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_dropped_leave_all_usable_and_cross_no_answers() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let mut sent = BTreeSet::new();
    for polls in 1..200 {
        let new = jobs(2);
        sent.extend(new.iter().map(|job| job.id));
        drop_after(polls % 20, enqueue(&store, new)).await;
        drop_after(polls % 7, claim(&store, 3)).await;
        let own = jobs(1);
        let id = own[0].id;
        enqueue(&store, own).await.unwrap();
        let found = store.find(deadline(), Find { ids: vec![id] }).await.unwrap();
        assert_eq!(found[0].as_ref().map(|job| job.id), Some(id), "an answer of another call");
    }
    total(&store).await;
}

/// Polls a future so many times, then drops it.
async fn drop_after<T>(polls: usize, call: impl Future<Output = T>) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let done = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
        if done {
            return;
        }
        tokio::task::yield_now().await;
    }
}
