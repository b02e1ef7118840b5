//! Keeps the registry of workers: see `Backend::check_in`, `workers` and `stop_workers`.

use leasehold_core::backend::{CheckIn, CheckedIn, StopWorkers, WorkerRecord, Workers};
use leasehold_core::{Timestamp, WorkerId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Done;
use crate::session::{Session, millis, rows};

pub(crate) async fn check_in(session: &mut Session<'_>, request: &CheckIn) -> Done<CheckedIn> {
    let db = session.db;
    let stop = db
        .query("SELECT leasehold.check_in($1, $2, $3, $4, $5, $6)")
        .bind(db.now())
        .bind(*request.worker.as_uuid())
        .bind(serde_json::to_string(&request.info)?)
        .bind(host(&request.info.host)?)
        .bind(millis(request.lost_after))
        .bind(request.leaving)
        .fetch_one(session.conn())
        .await?
        .try_get(0)?;
    Ok(CheckedIn { stop })
}

/// The name of a host as JSON, since it may have any character.
fn host(name: &str) -> Done<String> {
    Ok(serde_json::to_string(name)?)
}

const WORKERS: &str = "SELECT worker, info, started_at, seen_at, gone, stop,
        NOT gone AND leasehold.later(seen_at, lost_after) < coalesce($1, leasehold.hour())
    FROM leasehold.workers WHERE worker < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    ORDER BY worker DESC LIMIT $3";

pub(crate) async fn workers(session: &mut Session<'_>, request: Workers) -> Done<Vec<WorkerRecord>> {
    let db = session.db;
    let after = request.after.map(|worker| *worker.as_uuid());
    let query = db.query(WORKERS).bind(db.now()).bind(after).bind(rows(request.limit));
    let found = query.fetch_all(session.conn()).await?;
    found.iter().map(worker).collect()
}

fn worker(row: &PgRow) -> Done<WorkerRecord> {
    let info = serde_json::from_str(row.try_get(1)?)?;
    let started_at = Timestamp::from_millis(row.try_get(2)?);
    let mut worker = WorkerRecord::new(WorkerId::from_uuid(row.try_get(0)?), info, started_at);
    worker.seen_at = Timestamp::from_millis(row.try_get(3)?);
    worker.left = row.try_get(4)?;
    worker.stop_requested = row.try_get(5)?;
    worker.lost = row.try_get(6)?;
    Ok(worker)
}

pub(crate) async fn stop_workers(session: &mut Session<'_>, request: &StopWorkers) -> Done<u64> {
    let db = session.db;
    let asked = match request {
        StopWorkers::One(worker) => db
            .query("UPDATE leasehold.workers SET stop = true WHERE NOT gone AND worker = $1")
            .bind(*worker.as_uuid()),
        StopWorkers::Host(name) => db
            .query("UPDATE leasehold.workers SET stop = true WHERE NOT gone AND host = $1")
            .bind(host(name)?),
        StopWorkers::All => db.query("UPDATE leasehold.workers SET stop = true WHERE NOT gone"),
    };
    Ok(asked.execute(session.conn()).await?.rows_affected())
}
