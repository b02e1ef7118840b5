use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Cursor, Event, Order, Prune, Pruned, QueueRecord, Select, SetQueue,
};
use leasehold_core::{JobId, JobRecord, Result, Timestamp};

use crate::inspect::Walk;
use crate::schema::Tables;
use crate::{registers, workers};

pub(crate) fn amend(tables: &mut Tables, now: Timestamp, request: &Amend) -> Result<Amended> {
    let order = Order::OldestFirst;
    let (jobs, next) = match &request.select {
        Select::Ids(ids) => (ids.clone(), None),
        Select::Matching { filter, as_of, after, limit } => {
            let mut filter = filter.clone();
            filter.enqueued_until = Some(filter.enqueued_until.map_or(*as_of, |until| until.min(*as_of)));
            let after = after.as_ref().map(|cursor| cursor.age(order)).transpose()?;
            let walk = Walk { filter: &filter, order, after, limit: *limit };
            let (slots, next) = walk.run(tables, now);
            let jobs = slots.into_iter().map(|slot| tables.rows[slot].job.id).collect();
            (jobs, next.map(|age| Cursor::after(order, age)))
        }
    };
    let mut one = |job| (job, amend_one(tables, now, job, &request.action, request.preview));
    Ok(Amended { jobs: jobs.into_iter().map(&mut one).collect(), next })
}

fn amend_one(tables: &mut Tables, now: Timestamp, id: JobId, action: &Action, preview: bool) -> AmendAnswer {
    let Some(slot) = tables.slot(id) else { return AmendAnswer::NotFound };
    let mut job = tables.rows[slot].job.clone();
    let key = job.key_taken_again(action).cloned();
    let answer = match job.amend(action, now) {
        AmendAnswer::Applied => {
            let holder = key.as_ref().and_then(|key| tables.key_holder(key, now));
            holder.map_or(AmendAnswer::Applied, AmendAnswer::Held)
        }
        answer => answer,
    };
    if preview {
        return answer;
    }
    match answer {
        AmendAnswer::Applied if action.deletes() => tables.delete(slot),
        AmendAnswer::Applied => apply(tables, now, slot, job, action),
        AmendAnswer::Requested => request_cancel(tables, slot),
        _ => {}
    }
    answer
}

/// Puts the changed job in the place of what it was.
fn apply(tables: &mut Tables, now: Timestamp, slot: usize, job: JobRecord, action: &Action) {
    tables.leave(slot);
    let takes_key = tables.rows[slot].job.key_taken_again(action).is_some();
    if let Some(unique) = job.options.unique.as_ref().filter(|_| takes_key) {
        tables.take_key(unique, job.id, now);
    }
    let (from, to) = (tables.rows[slot].queue, tables.queue(&job.queue));
    if from != to {
        tables.queues[from].deleted += 1;
        tables.queues[to].enqueued += 1;
    }
    let row = &mut tables.rows[slot];
    row.queue = to;
    row.job = job;
    tables.enter(slot, now);
}

fn request_cancel(tables: &mut Tables, slot: usize) {
    let row = &mut tables.rows[slot];
    row.job.cancel_requested = true;
    if tables.watched {
        let (job, queue) = (row.job.id, row.job.queue.clone());
        tables.tell(Event::CancelRequested { job, queue });
    }
}

pub(crate) fn set_queue(tables: &mut Tables, now: Timestamp, request: SetQueue) {
    let index = tables.queue(&request.queue);
    let queue = &mut tables.queues[index];
    let opened = request.settings.pause.is_none() && queue.settings != request.settings;
    queue.settings = request.settings;
    queue.changed_at = Some(now);
    tables.tell(Event::QueueSet { queue: request.queue });
    if opened {
        tables.wake(index);
    }
}

pub(crate) fn queues(tables: &Tables) -> Vec<QueueRecord> {
    let record = |queue: &crate::schema::Queue| {
        QueueRecord::new(queue.name.clone(), queue.settings.clone(), queue.changed_at)
    };
    tables.queue_names.values().map(|&queue| record(&tables.queues[queue])).collect()
}

pub(crate) fn prune(tables: &mut Tables, now: Timestamp, request: Prune) -> Pruned {
    let is_over = |tables: &Tables| tables.expiry.first().filter(|(at, _)| *at < now).map(|(_, slot)| *slot);
    let mut pruned = Pruned::default();
    while (pruned.jobs as usize) < request.limit
        && let Some(slot) = is_over(tables)
    {
        tables.delete(slot);
        pruned.jobs += 1;
    }
    pruned.workers = workers::forget(tables, now, request.workers_after);
    let more_registers;
    (pruned.registers, more_registers) = registers::prune(tables, now, request.limit);
    pruned.more = is_over(tables).is_some() || more_registers;
    pruned
}
