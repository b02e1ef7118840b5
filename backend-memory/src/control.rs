use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Event, Order, Prune, Pruned, QueueRecord, Select, SetQueue,
};
use leasehold_core::{JobId, Reason, Result, State, Timestamp, UniqueScope};

use crate::inspect::{Walk, read_cursor, write_cursor};
use crate::schema::Tables;
use crate::workers;

pub(crate) fn amend(tables: &mut Tables, now: Timestamp, request: &Amend) -> Result<Amended> {
    const LIST: &str = "amend";
    let (jobs, next) = match &request.select {
        Select::Ids(ids) => (ids.clone(), None),
        Select::Matching { filter, as_of, after, limit } => {
            let mut filter = filter.clone();
            filter.enqueued_until = Some(filter.enqueued_until.map_or(*as_of, |until| until.min(*as_of)));
            let after = after.as_ref().map(|cursor| read_cursor(cursor, LIST)).transpose()?;
            let walk = Walk { filter: &filter, order: Order::OldestFirst, after, limit: *limit };
            let (slots, next) = walk.run(tables, now);
            let jobs = slots.into_iter().map(|slot| tables.rows[slot].job.id).collect();
            (jobs, next.map(|age| write_cursor(age, LIST)))
        }
    };
    let mut one = |job| (job, amend_one(tables, now, job, &request.action, request.preview));
    Ok(Amended { jobs: jobs.into_iter().map(&mut one).collect(), next })
}

fn amend_one(tables: &mut Tables, now: Timestamp, job: JobId, action: &Action, preview: bool) -> AmendAnswer {
    let Some(slot) = tables.slot(job) else { return AmendAnswer::NotFound };
    let answer = answer(tables, now, slot, action);
    if preview {
        return answer;
    }
    match answer {
        AmendAnswer::Applied => apply(tables, now, slot, action),
        AmendAnswer::Requested => request_cancel(tables, slot),
        _ => {}
    }
    answer
}

/// What an amendment of this job would answer.
fn answer(tables: &mut Tables, now: Timestamp, slot: usize, action: &Action) -> AmendAnswer {
    let job = tables.rows[slot].seen(now);
    let so_already = match (action, job.state) {
        (Action::Cancel, State::Cancelled) => true,
        (Action::Cancel, State::Running) => return AmendAnswer::Requested,
        (Action::Cancel, state) if state.is_terminal() => return AmendAnswer::Refused(state),
        (Action::Requeue { .. }, state) if !state.is_terminal() => return AmendAnswer::Refused(state),
        (Action::Postpone { .. }, state) if !state.is_waiting() => return AmendAnswer::Refused(state),
        (Action::Move { queue }, _) if *queue == job.queue => true,
        (Action::Delete | Action::Move { .. }, State::Running) => {
            return AmendAnswer::Refused(State::Running);
        }
        (Action::Reprioritise { priority }, _) => *priority == job.options.priority,
        (Action::Postpone { due }, _) => due.by(now) == job.due,
        (Action::Requeue { .. }, _) => {
            let unique =
                job.options.unique.clone().filter(|unique| unique.scope == UniqueScope::UntilFinished);
            return match unique.and_then(|unique| tables.key_holder(&unique.key, now)) {
                Some(holder) => AmendAnswer::Held(holder),
                None => AmendAnswer::Applied,
            };
        }
        (Action::Cancel | Action::Delete | Action::Move { .. }, _) => false,
    };
    if so_already { AmendAnswer::AlreadyApplied } else { AmendAnswer::Applied }
}

fn apply(tables: &mut Tables, now: Timestamp, slot: usize, action: &Action) {
    if *action == Action::Delete {
        return tables.delete(slot);
    }
    tables.leave(slot);
    match action {
        Action::Cancel => tables.rows[slot].end(State::Cancelled, Some(Reason::Cancelled), now),
        Action::Requeue { due } => {
            let row = &mut tables.rows[slot];
            row.requeue(due.by(now), now);
            let (job, unique) = (row.job.id, row.job.options.unique.clone());
            if let Some(unique) = unique.filter(|unique| unique.scope == UniqueScope::UntilFinished) {
                tables.take_key(&unique, job, now);
            }
        }
        Action::Move { queue } => {
            let to = tables.queue(queue);
            let row = &mut tables.rows[slot];
            tables.queues[row.queue].deleted += 1;
            tables.queues[to].enqueued += 1;
            row.queue = to;
            row.job.queue = queue.clone();
        }
        Action::Reprioritise { priority } => tables.rows[slot].job.options.priority = *priority,
        Action::Postpone { due } => tables.rows[slot].wait(due.by(now), Some(Reason::Postponed), now),
        Action::Delete => {}
    }
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
    let opened = queue.settings.pause.is_some() && request.settings.pause.is_none();
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
    pruned.more = is_over(tables).is_some();
    pruned
}
