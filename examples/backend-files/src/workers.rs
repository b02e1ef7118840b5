use std::ops::Bound;
use std::time::Duration;

use leasehold_core::backend::{CheckIn, CheckedIn, StopWorkers, WorkerRecord, Workers};
use leasehold_core::{Result, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

use crate::schema::{Change, Tables};

/// A worker as it is stored: whether it is lost is seen only when somebody looks.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) record: WorkerRecord,
    lost_after: Duration,
}

pub(crate) fn check_in(tables: &mut Tables, now: Timestamp, request: CheckIn) -> Result<CheckedIn> {
    let CheckIn { worker, info, lost_after, leaving } = request;
    let known = tables.workers.get(&worker).map(|known| known.record.clone());
    let mut record = known.unwrap_or_else(|| WorkerRecord::new(worker, info.clone(), now));
    (record.info, record.seen_at, record.left) = (info, now, leaving);
    let stop = record.stop_requested;
    tables.change(Change::Worker(Box::new(Worker { record, lost_after })));
    Ok(CheckedIn { stop })
}

pub(crate) fn workers(tables: &mut Tables, now: Timestamp, request: Workers) -> Result<Vec<WorkerRecord>> {
    let older = request.after.map_or(Bound::Unbounded, Bound::Excluded);
    let newest_first = tables.workers.range((Bound::Unbounded, older)).rev();
    let seen = |(_, worker): (_, &Worker)| {
        let mut record = worker.record.clone();
        record.look(worker.lost_after, now);
        record
    };
    Ok(newest_first.take(request.limit).map(seen).collect())
}

/// Asks those that have not said that they were going; a lost one learns it if it comes back.
pub(crate) fn stop(tables: &mut Tables, _: Timestamp, request: StopWorkers) -> Result<u64> {
    let meant = |worker: &WorkerRecord| match &request {
        StopWorkers::One(id) => worker.worker == *id,
        StopWorkers::Host(host) => worker.info.host == *host,
        StopWorkers::All => true,
    };
    let asked = tables.workers.values().filter(|worker| !worker.record.left && meant(&worker.record));
    let asked: Vec<Worker> = asked.cloned().collect();
    let count = asked.len() as u64;
    for mut worker in asked {
        worker.record.stop_requested = true;
        tables.change(Change::Worker(Box::new(worker)));
    }
    Ok(count)
}

/// Forgets the workers that have been silent for this long; answers how many.
pub(crate) fn forget(tables: &mut Tables, now: Timestamp, silent_for: Duration) -> u64 {
    let silent = tables.workers.iter().filter(|(_, worker)| worker.record.is_silent_for(silent_for, now));
    let silent: Vec<WorkerId> = silent.map(|(id, _)| *id).collect();
    silent.iter().for_each(|id| tables.change(Change::Forgotten(*id)));
    silent.len() as u64
}
