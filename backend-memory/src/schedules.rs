use std::ops::Bound;

use leasehold_core::backend::{PutSchedule, Schedule, Schedules};
use leasehold_core::{Error, ErrorKind, Result, Timestamp};

use crate::schema::Tables;

pub(crate) fn put(tables: &mut Tables, request: PutSchedule) -> Result<u64> {
    let there = tables.schedules.get(&request.name);
    let version = there.map(|schedule| schedule.version);
    if version != request.expected {
        if let Some(same) = there.filter(|there| there.body == request.body && there.next == request.next) {
            return Ok(same.version);
        }
        let shown =
            |version: Option<u64>| version.map_or("none".into(), |version| format!("version {version}"));
        let (name, is, expected) = (&request.name, shown(version), shown(request.expected));
        let why = format!("of the schedule {name:?} there is {is}, not {expected}; read it again");
        return Err(Error::new(ErrorKind::Conflict, why));
    }
    tables.schedule_version += 1;
    let (version, name) = (tables.schedule_version, request.name);
    let schedule = Schedule { name: name.clone(), body: request.body, next: request.next, version };
    tables.schedules.insert(name, schedule);
    Ok(version)
}

pub(crate) fn schedules(tables: &Tables, now: Timestamp, request: Schedules) -> Vec<Schedule> {
    let from = request.after.map_or(Bound::Unbounded, Bound::Excluded);
    let all = tables.schedules.range((from, Bound::Unbounded)).map(|(_, schedule)| schedule);
    let due = all.filter(|schedule| !request.due || schedule.next.is_some_and(|next| next <= now));
    due.take(request.limit).cloned().collect()
}
