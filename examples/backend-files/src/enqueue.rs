use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{JobId, JobRecord, NewJob, Result, Timestamp, UniqueKey};

use crate::record::Row;
use crate::schema::{Change, Tables};

pub(crate) fn enqueue(tables: &mut Tables, now: Timestamp, request: Enqueue) -> Result<Vec<Enqueued>> {
    Ok(request.jobs.into_iter().map(|job| one(tables, now, job)).collect())
}

fn one(tables: &mut Tables, now: Timestamp, new: NewJob) -> Enqueued {
    // The id goes first: a repeated enqueue is told that it exists, and not that it is in its own way.
    if tables.jobs.contains_key(&new.id) {
        return Enqueued { job: new.id, answer: EnqueueAnswer::Existing };
    }
    if let Some(unique) = &new.options.unique {
        if let Some(holder) = holder(tables, &unique.key, now) {
            return Enqueued { job: holder, answer: EnqueueAnswer::Held };
        }
        tables.change(Change::Key(unique.key.clone(), new.id));
    }
    let due = new.due.by(now);
    let job = JobRecord::new(new.id, new.queue, new.kind, new.payload, new.options, due, now);
    tables.put(Row { job, token: None, settled: None, logged: 0 });
    Enqueued { job: new.id, answer: EnqueueAnswer::Created }
}

/// Who holds this key now.
pub(crate) fn holder(tables: &Tables, key: &UniqueKey, now: Timestamp) -> Option<JobId> {
    let job = &tables.jobs.get(tables.keys.get(key)?)?.job;
    (job.held_key(now) == Some(key)).then_some(job.id)
}
