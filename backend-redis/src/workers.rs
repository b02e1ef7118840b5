//! Keeps the registry of workers: see `Backend::check_in`, `workers` and `stop_workers`.

use std::time::Duration;

use leasehold_core::Timestamp;
use leasehold_core::backend::{CheckIn, CheckedIn, StopWorkers, WorkerRecord, Workers};
use redis::Cmd;

use crate::error::{Done, corrupt};
use crate::scripts::{CHECK_IN, STOP_WORKERS, WORKERS};
use crate::session::{Db, millis, moment};

pub(crate) async fn check_in(db: &Db, request: CheckIn) -> Done<CheckedIn> {
    let info = serde_json::to_string(&request.info)?;
    let push = |command: &mut Cmd| {
        command.arg(request.worker.to_string()).arg(info).arg(&request.info.host);
        command.arg(millis(request.lost_after)).arg(if request.leaving { "1" } else { "" });
    };
    Ok(CheckedIn { stop: db.run(&CHECK_IN, push).await? })
}

/// A worker's id, what it says of itself, when it came and was seen, after how long it is lost, whether it left, and whether
/// it was asked to stop.
type Worker = (String, String, i64, i64, u64, String, bool);

pub(crate) async fn workers(db: &Db, request: Workers) -> Done<Vec<WorkerRecord>> {
    let push = |command: &mut Cmd| {
        command.arg(request.after.map_or_else(String::new, |worker| worker.to_string())).arg(request.limit);
    };
    let (now, found): (i64, Vec<Worker>) = db.run(&WORKERS, push).await?;
    found.into_iter().map(|worker| read(worker, moment(now))).collect()
}

fn read((id, info, started, seen, lost_after, left, stop): Worker, now: Timestamp) -> Done<WorkerRecord> {
    let info = serde_json::from_str(&info).map_err(corrupt)?;
    let mut worker = WorkerRecord::new(id.parse()?, info, moment(started));
    worker.seen_at = moment(seen);
    worker.left = !left.is_empty();
    worker.look(Duration::from_millis(lost_after), now);
    worker.stop_requested = stop;
    Ok(worker)
}

pub(crate) async fn stop_workers(db: &Db, request: StopWorkers) -> Done<u64> {
    let (how, which) = match request {
        StopWorkers::One(worker) => ("one", worker.to_string()),
        StopWorkers::Host(host) => ("host", host),
        StopWorkers::All => ("all", String::new()),
    };
    db.run(&STOP_WORKERS, |command| {
        command.arg(how).arg(which);
    })
    .await
}
