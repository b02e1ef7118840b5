use std::collections::BTreeSet;

use leasehold_core::backend::{Age, Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts};
use leasehold_core::{JobRecord, QueueName, Result, Timestamp};

use crate::schema::Tables;

pub(crate) fn find(tables: &mut Tables, now: Timestamp, request: &Find) -> Vec<Option<JobRecord>> {
    request.ids.iter().map(|id| tables.slot(*id).map(|slot| tables.rows[slot].seen(now).clone())).collect()
}

pub(crate) fn list(tables: &mut Tables, now: Timestamp, request: &List) -> Result<Page> {
    let after = request.after.as_ref().map(|cursor| cursor.age(request.order)).transpose()?;
    let walk = Walk { filter: &request.filter, order: request.order, after, limit: request.limit };
    let (slots, next) = walk.run(tables, now);
    let jobs = slots.into_iter().map(|slot| tables.rows[slot].job.clone()).collect();
    Ok(Page { jobs, unreadable: Vec::new(), next: next.map(|age| Cursor::after(request.order, age)) })
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
        let Some(range) = self.filter.ages(self.order, self.after) else { return (Vec::new(), None) };
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
}
