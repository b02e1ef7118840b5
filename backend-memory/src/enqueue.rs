use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{Error, ErrorKind, JobRecord, NewJob, Result, Timestamp};

use crate::record::Row;
use crate::schema::Tables;

pub(crate) fn enqueue(tables: &mut Tables, now: Timestamp, request: Enqueue) -> Result<Vec<Enqueued>> {
    has_room(tables, &request.jobs)?;
    Ok(request.jobs.into_iter().map(|job| one(tables, now, job)).collect())
}

/// Refuses the whole batch before any of it is taken in. Jobs that are there already need no room, so that a
/// repeated call gets its answer from a full store too.
fn has_room(tables: &Tables, jobs: &[NewJob]) -> Result<()> {
    let limit = tables.config.jobs;
    if tables.rows.len() + jobs.len() <= limit {
        return Ok(());
    }
    let new = jobs.iter().filter(|job| tables.slot(job.id).is_none()).count();
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
    if let Some(unique) = &new.options.unique {
        if let Some(holder) = tables.key_holder(&unique.key, now) {
            return Enqueued { job: holder, answer: EnqueueAnswer::Held };
        }
        tables.take_key(unique, new.id, now);
    }
    let queue = tables.queue(&new.queue);
    let due = new.due.by(now);
    let job = JobRecord::new(new.id, new.queue, new.kind, new.payload, new.options, due, now);
    tables.add(Row::new(job, queue), now);
    Enqueued { job: new.id, answer: EnqueueAnswer::Created }
}
