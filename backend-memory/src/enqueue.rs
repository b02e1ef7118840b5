use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{Error, ErrorKind, JobId, JobRecord, NewJob, Result, Timestamp};

use crate::record::Row;
use crate::schema::Tables;

pub(crate) fn enqueue(tables: &mut Tables, now: Timestamp, request: Enqueue) -> Result<Vec<Enqueued>> {
    has_room(tables, request.jobs.iter().map(|job| job.id))?;
    Ok(request.jobs.into_iter().map(|job| one(tables, now, job)).collect())
}

/// Refuses the whole batch before any of it is taken in. Jobs that are there already need no room, so that a
/// repeated call gets its answer from a full store too.
pub(crate) fn has_room(tables: &Tables, jobs: impl ExactSizeIterator<Item = JobId>) -> Result<()> {
    let limit = tables.config.jobs;
    if tables.rows.len() + jobs.len() <= limit {
        return Ok(());
    }
    let is_new = |job: &JobId| tables.slot(*job).is_none() && tables.replaced_by(*job).is_none();
    let new = jobs.filter(is_new).count();
    if new == 0 || tables.rows.len() + new <= limit {
        return Ok(());
    }
    let why = format!("the store holds at most {limit} jobs; prune ended jobs or raise `Config::jobs`");
    Err(Error::new(ErrorKind::Full, why))
}

fn one(tables: &mut Tables, now: Timestamp, new: NewJob) -> Enqueued {
    // The id goes first: a repeated enqueue is told that it exists, and not that it is in its own way.
    if tables.slot(new.id).is_some() {
        return Enqueued { job: new.id, answer: EnqueueAnswer::Existing };
    }
    if !new.on_conflict().is_keep()
        && let Some(job) = tables.replaced_by(new.id)
    {
        return Enqueued { job, answer: EnqueueAnswer::Replaced };
    }
    if let Some(unique) = &new.options.unique {
        if let Some(holder) = tables.key_holder(&unique.key, now) {
            let replaced = tables.slot(holder).is_some_and(|slot| replace(tables, slot, &new, now));
            let answer = if replaced { EnqueueAnswer::Replaced } else { EnqueueAnswer::Held };
            return Enqueued { job: holder, answer };
        }
        tables.take_key(unique, new.id, now);
    }
    let queue = tables.queue(&new.queue);
    let due = new.due.by(now);
    let job = JobRecord::new(new.id, new.queue, new.kind, new.payload, new.options, due, now);
    tables.add(Row::new(job, queue), now);
    Enqueued { job: new.id, answer: EnqueueAnswer::Created }
}

/// Gives the holder of a key what the newcomer brings, if it may have it, and tells whether it did.
fn replace(tables: &mut Tables, slot: usize, new: &NewJob, now: Timestamp) -> bool {
    let mut job = tables.rows[slot].job.clone();
    let replaced = job.replace(new, now);
    if replaced {
        tables.leave(slot);
        tables.rows[slot].job = job;
        tables.enter(slot, now);
        tables.remember_replacement(slot, new.id);
    }
    replaced
}
