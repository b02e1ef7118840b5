use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use leasehold_core::backend::{Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts};
use leasehold_core::{Error, JobId, JobRecord, QueueName, Result, Timestamp};
use uuid::Uuid;

use crate::schema::Tables;

pub(crate) fn find(tables: &mut Tables, now: Timestamp, request: &Find) -> Vec<Option<JobRecord>> {
    request.ids.iter().map(|id| tables.slot(*id).map(|slot| tables.rows[slot].seen(now).clone())).collect()
}

pub(crate) fn list(tables: &mut Tables, now: Timestamp, request: &List) -> Result<Page> {
    let mark = match request.order {
        Order::NewestFirst => "newest",
        Order::OldestFirst => "oldest",
    };
    let after = request.after.as_ref().map(|cursor| read_cursor(cursor, mark)).transpose()?;
    let walk = Walk { filter: &request.filter, order: request.order, after, limit: request.limit };
    let (slots, next) = walk.run(tables, now);
    let jobs = slots.into_iter().map(|slot| tables.rows[slot].job.clone()).collect();
    Ok(Page { jobs, unreadable: Vec::new(), next: next.map(|age| write_cursor(age, mark)) })
}

pub(crate) fn counts(tables: &mut Tables, now: Timestamp, request: &Counts) -> Vec<QueueCounts> {
    let Tables { queues, queue_names, .. } = tables;
    let wanted: BTreeSet<&QueueName> = match &request.queues {
        Some(names) => names.iter().collect(),
        None => queue_names.keys().collect(),
    };
    let known = wanted.into_iter().filter_map(|name| queue_names.get(name));
    known.map(|&queue| queues[queue].counts(now)).collect()
}

/// A job's place in every list: when it was taken in, and its id. It never changes.
pub(crate) type Age = (Timestamp, JobId);

/// A walk over the jobs that match a filter.
pub(crate) struct Walk<'a> {
    pub(crate) filter: &'a Filter,
    pub(crate) order: Order,
    pub(crate) after: Option<Age>,
    pub(crate) limit: usize,
}

impl Walk<'_> {
    /// Where the rows of the next jobs are, and after which job to go on; none if there are no more.
    pub(crate) fn run(&self, tables: &mut Tables, now: Timestamp) -> (Vec<usize>, Option<Age>) {
        let Tables { by_age, rows, config, .. } = tables;
        let Some(range) = self.range() else { return (Vec::new(), None) };
        let ages: Box<dyn Iterator<Item = (&Age, &usize)>> = match self.order {
            Order::OldestFirst => Box::new(by_age.range(range)),
            Order::NewestFirst => Box::new(by_age.range(range).rev()),
        };
        let (mut slots, mut last, mut looks) = (Vec::new(), self.after, 0);
        for (age, &slot) in ages.filter(|(age, _)| Some(**age) != self.after) {
            let matches = self.filter.matches(rows[slot].seen(now));
            // Only one more match shows that there is a next page.
            if looks >= config.looks.max(1) || (matches && slots.len() >= self.limit) {
                return (slots, last);
            }
            looks += 1;
            last = Some(*age);
            if matches {
                slots.push(slot);
            }
        }
        (slots, None)
    }

    /// The ages to walk over; none if there are none.
    fn range(&self) -> Option<RangeInclusive<Age>> {
        let mut first = (self.filter.enqueued_from.unwrap_or_default(), JobId::from_uuid(Uuid::nil()));
        let mut last = (self.filter.enqueued_until.unwrap_or(Timestamp::MAX), JobId::from_uuid(Uuid::max()));
        match self.order {
            Order::OldestFirst => first = self.after.map_or(first, |after| after.max(first)),
            Order::NewestFirst => last = self.after.map_or(last, |after| after.min(last)),
        }
        (first <= last).then_some(first..=last)
    }
}

/// A cursor names its list, so that one of another list is refused.
pub(crate) fn write_cursor((at, job): Age, list: &str) -> Cursor {
    Cursor(format!("{list}.{}.{job}", at.as_millis()))
}

pub(crate) fn read_cursor(cursor: &Cursor, list: &str) -> Result<Age> {
    let parse = || {
        let (at, job) = cursor.0.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
        Some((Timestamp::from_millis(at.parse().ok()?), job.parse().ok()?))
    };
    let why = "the cursor is not of this list; use one that the same list returned, or none to begin";
    parse().ok_or_else(|| Error::invalid(why))
}
