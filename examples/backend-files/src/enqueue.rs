use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{JobId, JobRecord, NewJob, Result, Timestamp, UniqueKey, limits};

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
    if let Some(job) = tables.replaced.get(&new.id) {
        return Enqueued { job: *job, answer: EnqueueAnswer::Replaced };
    }
    if let Some(unique) = &new.options.unique {
        if let Some(job) = holder(tables, &unique.key, now) {
            let replaced = replace(tables, job, &new, now);
            let answer = if replaced { EnqueueAnswer::Replaced } else { EnqueueAnswer::Held };
            return Enqueued { job, answer };
        }
        tables.change(Change::Key(unique.key.clone(), new.id));
    }
    let due = new.due.by(now);
    let job = JobRecord::new(new.id, new.queue, new.kind, new.payload, new.options, due, now);
    tables.put(Row::new(job));
    Enqueued { job: new.id, answer: EnqueueAnswer::Created }
}

/// Gives the holder of a key what the newcomer brings, if it may have it, and tells whether it did.
fn replace(tables: &mut Tables, holder: JobId, new: &NewJob, now: Timestamp) -> bool {
    let Some(mut row) = tables.jobs.get(&holder).cloned() else { return false };
    let replaced = row.job.replace(new, now);
    if replaced {
        row.replaced.drain(..(row.replaced.len() + 1).saturating_sub(limits::REPLACEMENTS));
        row.replaced.push(new.id);
        tables.put(row);
    }
    replaced
}

/// Who holds this key now.
pub(crate) fn holder(tables: &Tables, key: &UniqueKey, now: Timestamp) -> Option<JobId> {
    let job = &tables.jobs.get(tables.keys.get(key)?)?.job;
    (job.held_key(now) == Some(key)).then_some(job.id)
}
