//! Keeps the registry of workers: see `Backend::check_in`, `workers` and `stop_workers`.

use std::time::Duration;

use leasehold_core::authoring::stored::{at_most, millis};
use leasehold_core::backend::{CheckIn, CheckedIn, StopWorkers, WorkerRecord, Workers};
use leasehold_core::{Timestamp, WorkerId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::error::Done;
use crate::writer::Session;

pub(crate) async fn check_in(session: &mut Session, request: CheckIn) -> Done<CheckedIn> {
    let stop = sqlx::query_scalar(
        "INSERT INTO leasehold_workers (worker, info, host, started_at, seen_at, lost_after, gone)
         VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET info = ?2, host = ?3, seen_at = ?4, lost_after = ?5, gone = ?6
         RETURNING stop",
    )
    .bind(*request.worker.as_uuid())
    .bind(serde_json::to_string(&request.info)?)
    .bind(&request.info.host)
    .bind(session.now.as_millis())
    .bind(millis(request.lost_after))
    .bind(request.leaving)
    .fetch_one(&mut session.conn)
    .await?;
    Ok(CheckedIn { stop })
}

pub(crate) async fn workers(
    conn: &mut SqliteConnection,
    request: Workers,
    now: Timestamp,
) -> Done<Vec<WorkerRecord>> {
    let rows = sqlx::query(
        "SELECT worker, info, started_at, seen_at, lost_after, gone, stop FROM leasehold_workers
         WHERE ?1 IS NULL OR worker < ?1 ORDER BY worker DESC LIMIT ?2",
    )
    .bind(request.after.map(|worker| *worker.as_uuid()))
    .bind(at_most(request.limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| worker(row, now)).collect()
}

fn worker(row: &SqliteRow, now: Timestamp) -> Done<WorkerRecord> {
    let info = serde_json::from_str(row.try_get(1)?)?;
    let started_at = Timestamp::from_millis(row.try_get(2)?);
    let mut worker = WorkerRecord::new(WorkerId::from_uuid(row.try_get(0)?), info, started_at);
    worker.seen_at = Timestamp::from_millis(row.try_get(3)?);
    let lost_after = Duration::from_millis(u64::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0));
    worker.left = row.try_get(5)?;
    worker.look(lost_after, now);
    worker.stop_requested = row.try_get(6)?;
    Ok(worker)
}

pub(crate) async fn stop_workers(session: &mut Session, request: StopWorkers) -> Done<u64> {
    let asked = match request {
        StopWorkers::One(worker) => {
            sqlx::query("UPDATE leasehold_workers SET stop = 1 WHERE NOT gone AND worker = ?")
                .bind(*worker.as_uuid())
        }
        StopWorkers::Host(host) => {
            sqlx::query("UPDATE leasehold_workers SET stop = 1 WHERE NOT gone AND host = ?").bind(host)
        }
        StopWorkers::All => sqlx::query("UPDATE leasehold_workers SET stop = 1 WHERE NOT gone"),
    };
    Ok(asked.execute(&mut session.conn).await?.rows_affected())
}
