use std::collections::BTreeSet;

use leasehold_core::backend::{Backend, Expired, Filter, Find, List, Order};
use leasehold_core::{ErrorKind, JobId, Reason, State};
use sqlx::{Connection, SqliteConnection};

use crate::{claim, deadline, enqueue, jobs, store, succeed, total};

/// What may be wrong with a row.
const DAMAGES: [&str; 4] =
    ["options = '{'", "options = '{\"priority\":\"high\"}'", "history = 'x'", "progress = '{'"];

#[tokio::test]
async fn a_damaged_row_is_set_aside_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let all = jobs(20);
    let ids: Vec<JobId> = all.iter().map(|job| job.id).collect();
    enqueue(&store, all).await.unwrap();
    let mut bad = BTreeSet::new();
    for (damage, id) in DAMAGES.iter().zip(&ids[3..]) {
        hurt(folder.path(), damage, *id).await;
        bad.insert(*id);
    }

    let error = store.find(deadline(), Find { ids: vec![ids[3]] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let list = List { filter: Filter::default(), order: Order::NewestFirst, after: None, limit: 100 };
    let page = store.list(deadline(), list).await.unwrap();
    assert_eq!((page.jobs.len(), page.unreadable.len()), (20 - bad.len(), bad.len()));

    let (mut good, mut aside) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let claimed = claim(&store, 7).await;
        if claimed.jobs.is_empty() && claimed.set_aside.is_empty() {
            break;
        }
        good.extend(claimed.jobs.iter().map(|leased| leased.job.id));
        aside.extend(claimed.set_aside.iter().filter_map(|aside| aside.job));
        succeed(&store, &claimed.jobs).await;
    }
    assert!(good.is_disjoint(&bad), "a damaged job was given out");
    assert_eq!((good.len(), aside), (16, bad));
    assert_eq!(total(&store).await, 20);
    let counts = store.counts(deadline(), Default::default()).await.unwrap();
    let of = |state| counts.iter().map(|queue| queue.of(state)).sum::<u64>();
    assert_eq!(of(State::Succeeded), 16);
    assert_eq!(of(State::Failed), 4, "{counts:?}");
}

#[tokio::test]
async fn a_row_damaged_while_it_runs_stops_no_recovery() {
    let folder = tempfile::tempdir().unwrap();
    let clock = leasehold_core::ManualClock::default();
    let config = leasehold_sqlite::Config::new(folder.path().join("jobs.db")).clock(clock.clone());
    let store = leasehold_sqlite::Sqlite::with(config).await.unwrap();
    store.setup(deadline()).await.unwrap();
    enqueue(&store, jobs(5)).await.unwrap();
    let held = claim(&store, 5).await.jobs;
    hurt(folder.path(), DAMAGES[0], held[0].job.id).await;
    clock.advance(std::time::Duration::from_secs(31));
    let expired = store.expired(deadline(), Expired { limit: 100 }).await.unwrap();
    assert_eq!(expired.len(), 4, "{expired:?}");
    let list = List { filter: Filter::default(), order: Order::NewestFirst, after: None, limit: 100 };
    let page = store.list(deadline(), list).await.unwrap();
    assert!(page.unreadable.len() == 1 || page.jobs.iter().any(|job| job.reason == Some(Reason::Unreadable)));
}

async fn hurt(folder: &std::path::Path, damage: &str, id: JobId) {
    let url = format!("sqlite:{}", folder.join("jobs.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    let sql = format!("UPDATE leasehold_jobs SET {damage} WHERE id = ?");
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(*id.as_uuid()).execute(&mut conn).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}
