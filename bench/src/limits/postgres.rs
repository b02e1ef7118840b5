use async_trait::async_trait;
use leasehold_core::{ClaimId, JobId, LeaseToken, NewJob};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Row};
use uuid::Uuid;

use crate::Trouble;
use crate::target::{Held, Target, expect};

/// The limit of PostgreSQL: one table with its key and one index, no promise but durability, each batch one statement.
/// A queue on PostgreSQL cannot be faster than this, and each promise that it keeps costs something.
pub(crate) struct RawPostgres {
    pool: PgPool,
    schema: String,
}

impl RawPostgres {
    pub(crate) async fn open(url: &str, schema: &str) -> Result<Self, Trouble> {
        let pool = PgPoolOptions::new().max_connections(10).test_before_acquire(false).connect(url).await?;
        let tables = format!(
            "CREATE SCHEMA {schema};
            CREATE TABLE {schema}.jobs (
                id uuid PRIMARY KEY, due bigint NOT NULL, enqueued_at bigint NOT NULL, lease_until bigint,
                finished_at bigint, claim uuid, max_attempts integer NOT NULL, attempt integer NOT NULL DEFAULT 0,
                state smallint NOT NULL, priority smallint NOT NULL, queue text NOT NULL, kind text NOT NULL,
                payload bytea NOT NULL
            ) WITH (fillfactor = 80);
            CREATE INDEX ON {schema}.jobs (queue, kind, priority, due, id) WHERE state = 2;"
        );
        sqlx::raw_sql(AssertSqlSafe(tables)).execute(&pool).await?;
        Ok(Self { pool, schema: schema.to_owned() })
    }

    /// Removes a schema with all that is in it.
    pub(crate) async fn drop(url: &str, schema: &str) -> Result<(), Trouble> {
        let mut conn = PgConnection::connect(url).await?;
        let drop = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
        sqlx::raw_sql(drop).execute(&mut conn).await?;
        Ok(())
    }

    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("jobs.", &format!("{}.", self.schema)))
    }
}

const HOUR: &str = "floor(extract(epoch FROM now()) * 1000)::bigint";

#[async_trait]
impl Target for RawPostgres {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        let count = jobs.len() as u64;
        let insert = format!(
            "INSERT INTO jobs.jobs (id, queue, kind, priority, state, due, enqueued_at, max_attempts, payload)
             SELECT id, queue, kind, priority, 2, {HOUR}, {HOUR}, max_attempts, payload
             FROM unnest($1, $2, $3, $4, $5, $6) AS new (id, queue, kind, priority, max_attempts, payload)"
        );
        let done = sqlx::query(self.sql(&insert))
            .bind(jobs.iter().map(|job| *job.id.as_uuid()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.queue.as_str().to_owned()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.kind.as_str().to_owned()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.options.priority).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.options.max_attempts.cast_signed()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.payload.as_bytes().to_vec()).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        expect("inserted", done.rows_affected() == count)
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble> {
        let claim = format!(
            "WITH first AS MATERIALIZED (
                 SELECT id FROM jobs.jobs WHERE state = 2 AND queue = 'default' AND kind = 'bench' AND priority = 0
                     AND due <= {HOUR} ORDER BY due, id LIMIT $2 FOR UPDATE SKIP LOCKED)
             UPDATE jobs.jobs AS j SET state = 3, attempt = attempt + 1, claim = $1, lease_until = {HOUR} + 600000
             FROM first WHERE j.id = first.id
             RETURNING j.id, queue, kind, priority, due, enqueued_at, max_attempts, payload, attempt, lease_until"
        );
        let claim = sqlx::query(self.sql(&claim)).bind(*ClaimId::generate().as_uuid()).bind(limit as i64);
        let mut held = Vec::with_capacity(limit);
        for row in claim.fetch_all(&self.pool).await? {
            let id = JobId::from_uuid(row.try_get::<Uuid, _>("id")?);
            // Read as a job would be, or the limit would do less than what it is the limit of.
            let (_, _): (String, Vec<u8>) = (row.try_get("kind")?, row.try_get("payload")?);
            held.push((id, LeaseToken::from_uuid(*id.as_uuid())));
        }
        Ok(held)
    }

    async fn settle(&self, held: Vec<Held>) -> Result<(), Trouble> {
        let count = held.len() as u64;
        let settle = format!(
            "UPDATE jobs.jobs SET state = 4, claim = NULL, lease_until = NULL, finished_at = {HOUR}
             WHERE state = 3 AND id = ANY ($1)"
        );
        let ids: Vec<_> = held.iter().map(|(id, _)| *id.as_uuid()).collect();
        let done = sqlx::query(self.sql(&settle)).bind(ids).execute(&self.pool).await?;
        expect("updated", done.rows_affected() == count)
    }

    async fn trips(&self) -> Result<Option<u64>, Trouble> {
        Ok(None)
    }
}
