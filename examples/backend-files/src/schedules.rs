use std::ops::Bound;

use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Result, Timestamp};

use crate::schema::{Change, Tables};

pub(crate) fn put(tables: &mut Tables, _: Timestamp, request: PutSchedule) -> Result<()> {
    if !request.replaces(tables.schedules.get(&request.name).map(|schedule| schedule.version))? {
        return Ok(());
    }
    let PutSchedule { name, body, next, version, .. } = request;
    tables.change(Change::Schedule(Schedule { name, body, next, version }));
    Ok(())
}

pub(crate) fn schedules(tables: &mut Tables, now: Timestamp, request: Schedules) -> Result<Vec<Schedule>> {
    let from = request.after.map_or(Bound::Unbounded, Bound::Excluded);
    let all = tables.schedules.range((from, Bound::Unbounded)).map(|(_, schedule)| schedule);
    let due = all.filter(|schedule| !request.due || schedule.next.is_some_and(|next| next <= now));
    Ok(due.take(request.limit).cloned().collect())
}

pub(crate) fn delete(tables: &mut Tables, _: Timestamp, request: DeleteSchedule) -> Result<bool> {
    let there = tables.schedules.contains_key(&request.name);
    if there {
        tables.change(Change::Unscheduled(request.name));
    }
    Ok(there)
}
