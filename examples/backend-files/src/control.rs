use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, List, Order, Prune, Pruned, QueueRecord, Select, SetQueue,
};
use leasehold_core::{JobId, QueueName, Result, State, Timestamp};

use crate::schema::{By, Change, Queue, START, Tables};
use crate::{enqueue, inspect, registers, workers};

pub(crate) fn amend(tables: &mut Tables, now: Timestamp, request: Amend) -> Result<Amended> {
    let (jobs, next) = match request.select {
        Select::Ids(ids) => (ids, None),
        Select::Matching { mut filter, as_of, after, limit } => {
            filter.enqueued_until = Some(filter.enqueued_until.map_or(as_of, |until| until.min(as_of)));
            let matching = List { filter, order: Order::OldestFirst, after, limit };
            let (jobs, next) = inspect::walk(tables, now, &matching)?;
            (jobs.into_iter().map(|job| job.id).collect(), next)
        }
    };
    let mut one = |job| (job, amend_one(tables, now, job, &request.action, request.preview));
    Ok(Amended { jobs: jobs.into_iter().map(&mut one).collect(), next })
}

fn amend_one(tables: &mut Tables, now: Timestamp, id: JobId, action: &Action, preview: bool) -> AmendAnswer {
    if tables.unreadable.contains_key(&id) {
        // Little is known of it but that it is there, so all that can be done is to remove it.
        return match action {
            Action::Delete if preview => AmendAnswer::Applied,
            Action::Delete => delete(tables, id),
            _ => AmendAnswer::Refused(State::Failed),
        };
    }
    let Some(mut row) = tables.jobs.get(&id).cloned() else { return AmendAnswer::NotFound };
    let key = row.job.key_taken_again(action).cloned();
    let answer = row.job.amend(action, now);
    let key = key.filter(|_| answer == AmendAnswer::Applied);
    if let Some(holder) = key.as_ref().and_then(|key| enqueue::holder(tables, key, now)) {
        return AmendAnswer::Held(holder);
    }
    match answer {
        _ if preview => {}
        AmendAnswer::Applied if action.deletes() => return delete(tables, id),
        AmendAnswer::Applied | AmendAnswer::Requested => {
            key.into_iter().for_each(|key| tables.change(Change::Key(key, id)));
            tables.put(row);
        }
        _ => {}
    }
    answer
}

fn delete(tables: &mut Tables, id: JobId) -> AmendAnswer {
    tables.change(Change::Deleted(id));
    AmendAnswer::Applied
}

pub(crate) fn set_queue(tables: &mut Tables, now: Timestamp, request: SetQueue) -> Result<()> {
    let mut queue = tables.queues.get(&request.queue).cloned().unwrap_or_default();
    (queue.settings, queue.changed_at) = (request.settings, Some(now));
    tables.change(Change::Queue(request.queue, queue));
    Ok(())
}

pub(crate) fn queues(tables: &mut Tables, _: Timestamp) -> Result<Vec<QueueRecord>> {
    let record = |(name, queue): (&QueueName, &Queue)| {
        QueueRecord::new(name.clone(), queue.settings.clone(), queue.changed_at)
    };
    Ok(tables.queues.iter().map(record).collect())
}

pub(crate) fn prune(tables: &mut Tables, now: Timestamp, request: Prune) -> Result<Pruned> {
    let over = tables.between(By::Expiry(START), By::Expiry(now)).map(|(_, row)| &row.job);
    let over = over.filter(|job| job.expires_at.is_some_and(|at| at < now)).map(|job| job.id);
    let mut jobs: Vec<JobId> = over.take(request.limit.saturating_add(1)).collect();
    let more = jobs.len() > request.limit;
    jobs.truncate(request.limit);
    jobs.iter().for_each(|id| tables.change(Change::Deleted(*id)));
    let workers = workers::forget(tables, now, request.workers_after);
    let (registers, more_registers) = registers::prune(tables, now, request.limit);
    Ok(Pruned { jobs: jobs.len() as u64, workers, registers, more: more || more_registers })
}
