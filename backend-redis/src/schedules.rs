//! Keeps schedules: see `Backend::put_schedule`, `schedules` and `delete_schedule`.

use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Payload, ScheduleName, VersionId};
use redis::Cmd;

use crate::error::{Done, corrupt};
use crate::scripts::{DELETE_SCHEDULE, PUT_SCHEDULE, SCHEDULES};
use crate::session::{Db, moment};

pub(crate) async fn put_schedule(db: &Db, request: PutSchedule) -> Done<()> {
    let shown = |version: Option<VersionId>| version.map_or_else(String::new, |version| version.to_string());
    let push = |command: &mut Cmd| {
        command.arg(request.name.as_str()).arg(request.body.as_bytes());
        command.arg(request.next.map_or_else(String::new, |next| next.as_millis().to_string()));
        command.arg(request.version.to_string()).arg(shown(request.expected));
    };
    if db.run(&PUT_SCHEDULE, push).await? { Ok(()) } else { Err(request.conflict().into()) }
}

/// A schedule's name, body, next tick and version.
type Kept = (String, Vec<u8>, String, String);

pub(crate) async fn schedules(db: &Db, request: Schedules) -> Done<Vec<Schedule>> {
    let push = |command: &mut Cmd| {
        let after = request.after.as_ref().map_or("", |name| name.as_str());
        command.arg(u8::from(request.due)).arg(after).arg(request.limit);
    };
    let found: Vec<Kept> = db.run(&SCHEDULES, push).await?;
    found.into_iter().map(read).collect()
}

fn read((name, body, next, version): Kept) -> Done<Schedule> {
    let next = if next.is_empty() { None } else { Some(moment(next.parse().map_err(corrupt)?)) };
    let (name, body) = (ScheduleName::new(name)?, Payload::from_bytes(body));
    Ok(Schedule { name, body, next, version: version.parse()? })
}

pub(crate) async fn delete_schedule(db: &Db, request: DeleteSchedule) -> Done<bool> {
    db.run(&DELETE_SCHEDULE, |command| {
        command.arg(request.name.as_str());
    })
    .await
}
