use leasehold_core::backend::{Counts, Cursor, Find, List, Order, Page, QueueCounts, SetAside};
use leasehold_core::{Error, ErrorKind, JobId, JobRecord, QueueName, Result, State, Timestamp};

use crate::schema::{By, Queue, START, Tables};

pub(crate) fn find(tables: &mut Tables, now: Timestamp, request: Find) -> Result<Vec<Option<JobRecord>>> {
    let one = |id| match tables.unreadable.get(id) {
        Some((_, why)) => Err(Error::new(ErrorKind::Corrupt, format!("job {id}: {why}"))),
        None => Ok(tables.jobs.get(id).map(|row| row.seen(now))),
    };
    request.ids.iter().map(one).collect()
}

pub(crate) fn list(tables: &mut Tables, now: Timestamp, request: List) -> Result<Page> {
    let (jobs, next) = walk(tables, now, &request)?;
    // When they were taken in may not be known either, so they stand at the end.
    let aside = |(id, (_, why)): (&JobId, &(_, String))| SetAside { job: Some(*id), why: why.clone() };
    let unreadable = if next.is_none() { tables.unreadable.iter().map(aside).collect() } else { Vec::new() };
    Ok(Page { jobs, unreadable, next })
}

/// The next jobs of a list, and where to go on; none if there are no more.
pub(crate) fn walk(tables: &Tables, now: Timestamp, list: &List) -> Result<(Vec<JobRecord>, Option<Cursor>)> {
    let after = list.after.as_ref().map(|cursor| cursor.age(list.order)).transpose()?;
    let Some(ages) = list.filter.ages(list.order, after) else { return Ok((Vec::new(), None)) };
    let (first, last) = ages.into_inner();
    let entries = tables.index.range((By::Age(first.0), first.1)..=(By::Age(last.0), last.1));
    let entries: Box<dyn Iterator<Item = &(By, JobId)>> = match list.order {
        Order::OldestFirst => Box::new(entries),
        Order::NewestFirst => Box::new(entries.rev()),
    };
    let seen = |(_, id): &(By, JobId)| Some(tables.jobs.get(id)?.seen(now));
    let mut jobs = entries.filter_map(seen).filter(|job| {
        after.is_none_or(|after| after != (job.enqueued_at, job.id))
            && !tables.unreadable.contains_key(&job.id)
            && list.filter.matches(job)
    });
    let page: Vec<JobRecord> = jobs.by_ref().take(list.limit).collect();
    // Only one more match shows that there is a next page.
    let last = page.last().filter(|_| jobs.next().is_some());
    let next = last.map(|job| Cursor::after(list.order, (job.enqueued_at, job.id)));
    Ok((page, next))
}

pub(crate) fn counts(tables: &mut Tables, now: Timestamp, request: Counts) -> Result<Vec<QueueCounts>> {
    let wanted = |name: &QueueName| request.queues.as_ref().is_none_or(|queues| queues.contains(name));
    let queues = tables.queues.iter().filter(|(name, _)| wanted(name));
    Ok(queues.map(|(name, queue)| counts_of(tables, now, name, queue)).collect())
}

fn counts_of(tables: &Tables, now: Timestamp, name: &QueueName, queue: &Queue) -> QueueCounts {
    let mut counts = QueueCounts::empty(name.clone());
    counts.states.clone_from(&queue.states);
    // How many of those that wait are due is not kept, as it changes by itself: the others are walked.
    let due = |at| By::Due(name.clone(), at);
    let later = tables.between(due(now), due(Timestamp::MAX)).filter(|(_, row)| row.job.due > now);
    let scheduled = later.count() as u64;
    *counts.states.entry(State::Queued).or_default() -= scheduled;
    counts.states.insert(State::Scheduled, scheduled);
    counts.states.retain(|_, jobs| *jobs > 0);
    (counts.enqueued, counts.deleted) = (queue.enqueued, queue.deleted);
    counts.oldest_due = tables.between(due(START), due(now)).next().map(|(_, row)| row.job.due);
    counts
}
