use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use leasehold_core::backend::{
    Claim, Claimed, Counts, Enqueue, Enqueued, QueueCounts, Settle, Settlement, Verdict,
};
use leasehold_core::{Backend, Deadline, LeasedJob, NewJob, QueueName, WorkerId};
use leasehold_sqlite::Sqlite;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;

/// A folder with a file of ours in it.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) store: Sqlite,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path().join("jobs.db")).await;
        Self { folder, store }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("jobs.db")
    }

    /// A connection of somebody else's.
    pub(crate) async fn connection(&self) -> SqliteConnection {
        connection(self.file()).await
    }
}

pub(crate) async fn open(file: PathBuf) -> Sqlite {
    let store = Sqlite::open(file).await.unwrap();
    store.setup(soon()).await.unwrap();
    store
}

pub(crate) async fn connection(file: PathBuf) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).create_if_missing(true).connect().await.unwrap()
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

pub(crate) fn jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|n| NewJob::dynamic("work", &n).unwrap()).collect()
}

pub(crate) async fn enqueue(store: &Sqlite, jobs: Vec<NewJob>) -> leasehold_core::Result<Vec<Enqueued>> {
    store.enqueue(soon(), Enqueue { jobs }).await
}

pub(crate) async fn claim(store: &Sqlite, limit: usize) -> Claimed {
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], limit, Duration::from_secs(60));
    store.claim(soon(), claim).await.unwrap()
}

pub(crate) fn success(leased: &LeasedJob) -> Settlement {
    let verdict = Verdict::Succeed { result: None };
    Settlement { job: leased.job.id, token: leased.token, verdict, failure: None }
}

pub(crate) async fn settle(store: &Sqlite, claimed: &Claimed) {
    let settlements = claimed.jobs.iter().map(success).collect();
    store.settle(soon(), Settle { settlements }).await.unwrap();
}

/// The counts of the default queue, which must add up (clause S2).
pub(crate) async fn counts(store: &Sqlite) -> QueueCounts {
    let counts = store.counts(soon(), Counts::default()).await.unwrap();
    let counts = counts.into_iter().next().unwrap_or_else(|| QueueCounts::empty(QueueName::default()));
    assert_eq!(counts.total() + counts.deleted, counts.enqueued);
    counts
}

/// A small file system in memory, unmounted when it is dropped.
pub(crate) struct Mount(TempDir);

impl Mount {
    /// None, with the reason on the standard error, where this process may not mount; with
    /// `CONFORMANCE_STRICT=1` that is a failure.
    pub(crate) fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        assert!(std::env::var("CONFORMANCE_STRICT").is_err(), "may not mount: {mounted:?}");
        eprintln!("does not run here, since this process may not mount: {mounted:?}");
        None
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        let done =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, as a connection may not have closed its file yet.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
