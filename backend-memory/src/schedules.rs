use std::ops::Bound;

use leasehold_core::backend::{PutSchedule, Schedule, Schedules};
use leasehold_core::{Result, Timestamp};

use crate::schema::Tables;

pub(crate) fn put(tables: &mut Tables, request: PutSchedule) -> Result<()> {
    if !request.replaces(tables.schedules.get(&request.name).map(|schedule| schedule.version))? {
        return Ok(());
    }
    let PutSchedule { name, body, next, version, .. } = request;
    tables.schedules.insert(name.clone(), Schedule { name, body, next, version });
    Ok(())
}

pub(crate) fn schedules(tables: &Tables, now: Timestamp, request: Schedules) -> Vec<Schedule> {
    let from = request.after.map_or(Bound::Unbounded, Bound::Excluded);
    let all = tables.schedules.range((from, Bound::Unbounded)).map(|(_, schedule)| schedule);
    let due = all.filter(|schedule| !request.due || schedule.next.is_some_and(|next| next <= now));
    due.take(request.limit).cloned().collect()
}
