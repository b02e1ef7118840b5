//! Damage, full disks, and callers that go away.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use leasehold_core::backend::{Enqueue, Expired, Filter, Find, List, Order};
use leasehold_core::{Backend, ErrorKind, JobId, NewJob, Payload, Reason, State};
use leasehold_sqlite::{Config, Sqlite};
use sqlx::Executor;

use crate::bench::{Bench, Mount, claim, counts, enqueue, jobs, open, settle, soon};

fn list() -> List {
    List { filter: Filter::default(), order: Order::OldestFirst, after: None, limit: 100 }
}

/// Breaks a job's record in a way that only reading it shows.
async fn damage(bench: &Bench, job: JobId, what: &str) {
    let sql = format!("UPDATE leasehold_jobs SET {what} WHERE id = ?");
    let mut connection = bench.connection().await;
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(*job.as_uuid()).execute(&mut connection).await;
    assert_eq!(done.unwrap().rows_affected(), 1);
}

#[tokio::test]
async fn a_damaged_record_stops_no_claim() {
    for damaged in ["options = '{'", "history = 'nonsense'", "id = x'00'", "progress = '[]'"] {
        let bench = Bench::new().await;
        let jobs = jobs(5);
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        enqueue(&bench.store, jobs).await.unwrap();
        damage(&bench, ids[2], damaged).await;
        let page = bench.store.list(soon(), list()).await.unwrap();
        assert_eq!((page.jobs.len(), page.unreadable.len()), (4, 1), "{damaged}");
        let claimed = claim(&bench.store, 10).await;
        assert_eq!((claimed.jobs.len(), claimed.set_aside.len()), (4, 1), "{damaged}");
        settle(&bench.store, &claimed).await;
        let counts = counts(&bench.store).await;
        assert_eq!((counts.of(State::Succeeded), counts.of(State::Failed)), (4, 1), "{damaged}");
        let reason: String = sqlx::query_scalar("SELECT reason FROM leasehold_jobs WHERE state = 5")
            .fetch_one(&mut bench.connection().await)
            .await
            .unwrap();
        assert_eq!(reason.parse(), Ok(Reason::Unreadable));
    }
}

#[tokio::test]
async fn a_damaged_record_stops_no_recovery_and_is_told_by_find() {
    let clock = leasehold_core::ManualClock::default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = Sqlite::with(Config::new(&file).clock(clock.clone())).await.unwrap();
    store.setup(soon()).await.unwrap();
    let bench = Bench { folder, store };
    let jobs = jobs(3);
    let bad = jobs[0].id;
    enqueue(&bench.store, jobs).await.unwrap();
    assert_eq!(claim(&bench.store, 3).await.jobs.len(), 3);
    damage(&bench, bad, "options = '{'").await;
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(bench.store.expired(soon(), Expired { limit: 10 }).await.unwrap().len(), 2);
    assert_eq!(counts(&bench.store).await.of(State::Failed), 1);
    let error = bench.store.find(soon(), Find { ids: vec![bad] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_damaged_claim_stops_no_recovery() {
    for damaged in ["claim = NULL", "claim = x'00'"] {
        let bench = Bench::new().await;
        let jobs = jobs(3);
        let bad = jobs[0].id;
        enqueue(&bench.store, jobs).await.unwrap();
        assert_eq!(claim(&bench.store, 3).await.jobs.len(), 3);
        damage(&bench, bad, damaged).await;
        bench.connection().await.execute("UPDATE leasehold_jobs SET lease_until = 1").await.unwrap();
        let expired = bench.store.expired(soon(), Expired { limit: 10 }).await.unwrap();
        assert_eq!((expired.len(), counts(&bench.store).await.of(State::Failed)), (2, 1), "{damaged}");
    }
}

#[tokio::test]
async fn a_damaged_limit_or_lease_stops_no_claim() {
    for damaged in ["limit_key = CAST(x'ff' AS TEXT), limit_max = 1", "lease = 9223372036854775807"] {
        let bench = Bench::new().await;
        let jobs = jobs(3);
        let bad = jobs[1].id;
        enqueue(&bench.store, jobs).await.unwrap();
        damage(&bench, bad, damaged).await;
        assert_eq!(claim(&bench.store, 10).await.jobs.len(), 3, "{damaged}");
    }
}

#[tokio::test]
async fn a_damaged_lane_stops_no_other() {
    let bench = Bench::new().await;
    enqueue(&bench.store, jobs(2)).await.unwrap();
    enqueue(&bench.store, vec![NewJob::dynamic("bad", &1).unwrap()]).await.unwrap();
    let sql = "UPDATE leasehold_lanes SET kind = '' WHERE kind = 'bad'";
    bench.connection().await.execute(sql).await.unwrap();
    assert_eq!(claim(&bench.store, 10).await.jobs.len(), 2);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_got_over() {
    let Some(mount) = Mount::new("size=4m") else { return };
    let filler = mount.path().join("filler");
    let store = open(mount.path().join("jobs.db")).await;
    std::fs::write(&filler, vec![0; 1 << 20]).unwrap();
    let mut acknowledged = Vec::new();
    let full = loop {
        let job = NewJob::new("large".parse().unwrap(), Payload::from(vec![7; 50_000]));
        let id = job.id;
        match enqueue(&store, vec![job]).await {
            Ok(_) => acknowledged.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::Full, "{full:?}");
    assert!(!acknowledged.is_empty());
    std::fs::remove_file(filler).unwrap();
    enqueue(&store, jobs(1)).await.unwrap();
    let found = store.find(soon(), Find { ids: acknowledged.clone() }).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    assert_eq!(counts(&store).await.of(State::Queued), acknowledged.len() as u64 + 1);
    assert_eq!(integrity(&mount.path().join("jobs.db")).await, "ok");
}

async fn integrity(file: &Path) -> String {
    let mut connection = crate::bench::connection(file.to_owned()).await;
    sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_call_that_fails_harms_no_other_of_its_commit() {
    let bench = Bench::new().await;
    let sql = "CREATE TRIGGER no_thirteen BEFORE INSERT ON leasehold_jobs WHEN new.seq > 0 AND new.max_attempts = 13
        BEGIN SELECT raise(ABORT, 'no'); END";
    bench.connection().await.execute(sql).await.unwrap();
    let one = |n: u32| enqueue(&bench.store, vec![NewJob::dynamic("work", &n).unwrap().max_attempts(n)]);
    let outcomes = futures::future::join_all((1..=30).map(one)).await;
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(counts(&bench.store).await.of(State::Queued), 29);
}

#[tokio::test]
async fn dropped_calls_leave_everything_usable() {
    let bench = Bench::new().await;
    let mut enqueued = 0;
    for polls in 0..40 {
        let mut call = Box::pin(bench.store.enqueue(soon(), Enqueue { jobs: jobs(3) }));
        for _ in 0..polls {
            if (&mut call).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        enqueued += enqueue(&bench.store, jobs(1)).await.unwrap().len();
    }
    let counts = counts(&bench.store).await;
    assert!(counts.of(State::Queued) >= enqueued as u64);
    assert_eq!(
        (counts.of(State::Queued) - enqueued as u64) % 3,
        0,
        "a dropped call happened as a whole or not"
    );
}
