use std::path::Path;

use async_trait::async_trait;
use leasehold_core::{Clock, JobId, LeaseToken, NewJob, SystemClock};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, QueryBuilder, Row, Sqlite};
use tokio::sync::Mutex;

use crate::Trouble;
use crate::target::{Held, Target, expect};

/// The limit of SQLite: one table and one index, no promise but durability, each batch one statement and one
/// commit. A queue on SQLite cannot be faster than this, and each promise that it keeps costs something.
pub(crate) struct RawSqlite {
    /// One, since SQLite has one writer at a time.
    connection: Mutex<SqliteConnection>,
}

impl RawSqlite {
    pub(crate) async fn open(file: &Path) -> Result<Self, Trouble> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut connection = options.connect().await?;
        let schema = "
            CREATE TABLE jobs (
                seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, queue TEXT NOT NULL, kind TEXT NOT NULL,
                priority INTEGER NOT NULL, state INTEGER NOT NULL, due INTEGER NOT NULL,
                enqueued_at INTEGER NOT NULL, max_attempts INTEGER NOT NULL, payload BLOB NOT NULL,
                attempt INTEGER NOT NULL DEFAULT 0, claim BLOB, lease_until INTEGER, finished_at INTEGER
            ) STRICT;
            CREATE INDEX jobs_waiting ON jobs (queue, kind, priority DESC, due, id) WHERE state = 2;";
        sqlx::raw_sql(schema).execute(&mut connection).await?;
        Ok(Self { connection: Mutex::new(connection) })
    }
}

#[async_trait]
impl Target for RawSqlite {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        let (now, count) = (SystemClock.now().as_millis(), jobs.len() as u64);
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO jobs (id, queue, kind, priority, state, due, enqueued_at, max_attempts, payload) ",
        );
        insert.push_values(jobs, |mut row, job| {
            row.push_bind(job.id.as_uuid().to_owned())
                .push_bind(job.queue.as_str().to_owned())
                .push_bind(job.kind.as_str().to_owned())
                .push_bind(job.options.priority)
                .push("2")
                .push_bind(now)
                .push_bind(now)
                .push_bind(job.options.max_attempts)
                .push_bind(job.payload.as_bytes().to_vec());
        });
        let done = insert.build().execute(&mut *self.connection.lock().await).await?;
        expect("inserted", done.rows_affected() == count)
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble> {
        let claim = "
            UPDATE jobs SET state = 3, attempt = attempt + 1, claim = ?1, lease_until = ?2 + 600000
            WHERE seq IN (
                SELECT seq FROM jobs WHERE state = 2 AND queue = 'default' AND kind = 'bench' AND priority = 0
                    AND due <= ?2 ORDER BY due, id LIMIT ?3)
            RETURNING id, queue, kind, priority, due, enqueued_at, max_attempts, payload, attempt, lease_until";
        let claim = sqlx::query(claim)
            .bind(leasehold_core::ClaimId::generate().as_uuid().to_owned())
            .bind(SystemClock.now().as_millis())
            .bind(limit as i64);
        let rows = claim.fetch_all(&mut *self.connection.lock().await).await?;
        let mut held = Vec::with_capacity(rows.len());
        for row in rows {
            let id = JobId::from_uuid(row.try_get("id")?);
            // Read as a job would be, or the limit would do less than what it is the limit of.
            let (_, _): (String, Vec<u8>) = (row.try_get("kind")?, row.try_get("payload")?);
            held.push((id, LeaseToken::from_uuid(*id.as_uuid())));
        }
        Ok(held)
    }

    async fn settle(&self, held: Vec<Held>) -> Result<(), Trouble> {
        let count = held.len() as u64;
        let mut settle =
            QueryBuilder::<Sqlite>::new("UPDATE jobs SET state = 4, claim = NULL, lease_until = NULL, ");
        settle
            .push("finished_at = ")
            .push_bind(SystemClock.now().as_millis())
            .push(" WHERE state = 3 AND id IN (");
        let mut ids = settle.separated(", ");
        for (id, _) in held {
            ids.push_bind(id.as_uuid().to_owned());
        }
        settle.push(")");
        let done = settle.build().execute(&mut *self.connection.lock().await).await?;
        expect("updated", done.rows_affected() == count)
    }

    async fn trips(&self) -> Result<Option<u64>, Trouble> {
        Ok(None)
    }
}
