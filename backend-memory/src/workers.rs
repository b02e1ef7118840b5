use std::ops::Bound;
use std::time::Duration;

use leasehold_core::backend::{CheckIn, CheckedIn, StopWorkers, WorkerRecord, Workers};
use leasehold_core::{Timestamp, WorkerId};

use crate::schema::Tables;

/// A worker as it is stored: whether it is lost is seen only when somebody looks.
pub(crate) struct Worker {
    record: WorkerRecord,
    lost_after: Duration,
}

impl Worker {
    fn seen(&self, now: Timestamp) -> WorkerRecord {
        let mut record = self.record.clone();
        record.look(self.lost_after, now);
        record
    }
}

pub(crate) fn check_in(tables: &mut Tables, now: Timestamp, request: CheckIn) -> CheckedIn {
    let CheckIn { worker, info, lost_after, leaving } = request;
    let known = tables
        .workers
        .entry(worker)
        .or_insert_with(|| Worker { record: WorkerRecord::new(worker, info.clone(), now), lost_after });
    known.record.info = info;
    known.record.seen_at = now;
    known.record.left = leaving;
    known.lost_after = lost_after;
    CheckedIn { stop: known.record.stop_requested }
}

pub(crate) fn workers(tables: &Tables, now: Timestamp, request: Workers) -> Vec<WorkerRecord> {
    let older = request.after.map_or(Bound::Unbounded, Bound::Excluded);
    let newest_first = tables.workers.range((Bound::Unbounded, older)).rev();
    newest_first.take(request.limit).map(|(_, worker)| worker.seen(now)).collect()
}

/// Asks those that have not said that they were going; a lost one learns it if it comes back.
pub(crate) fn stop(tables: &mut Tables, request: &StopWorkers) -> u64 {
    let meant = |worker: &WorkerRecord| match request {
        StopWorkers::One(id) => worker.worker == *id,
        StopWorkers::Host(host) => worker.info.host == *host,
        StopWorkers::All => true,
    };
    let mut asked = 0;
    for worker in tables.workers.values_mut().filter(|worker| !worker.record.left && meant(&worker.record)) {
        worker.record.stop_requested = true;
        asked += 1;
    }
    asked
}

/// Forgets the workers that have been silent for this long; answers how many.
pub(crate) fn forget(tables: &mut Tables, now: Timestamp, silent_for: Duration) -> u64 {
    let gone: Vec<WorkerId> = tables
        .workers
        .extract_if(.., |_, worker| worker.record.is_silent_for(silent_for, now))
        .map(|(id, _)| id)
        .collect();
    for &worker in &gone {
        tables.logs.forget_worker(worker);
    }
    gone.len() as u64
}
