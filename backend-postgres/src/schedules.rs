//! Keeps schedules: see `Backend::put_schedule`, `schedules` and `delete_schedule`.

use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Payload, ScheduleName, VersionId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Done;
use crate::session::{Session, moment, rows};

pub(crate) async fn put_schedule(session: &mut Session<'_>, request: &PutSchedule) -> Done<()> {
    let written: bool = session
        .db
        .query("SELECT leasehold.put_schedule($1, $2, $3, $4, $5)")
        .bind(request.name.as_str().to_owned())
        .bind(request.body.as_bytes().to_vec())
        .bind(request.next.map(leasehold_core::Timestamp::as_millis))
        .bind(*request.version.as_uuid())
        .bind(request.expected.map(|version| *version.as_uuid()))
        .fetch_one(session.conn())
        .await?
        .try_get(0)?;
    if written { Ok(()) } else { Err(request.conflict().into()) }
}

const SCHEDULES: &str = "SELECT name, body, next, version FROM leasehold.schedules
    WHERE name > $1 AND (NOT $2 OR next <= coalesce($3, leasehold.hour())) ORDER BY name LIMIT $4";

pub(crate) async fn schedules(session: &mut Session<'_>, request: &Schedules) -> Done<Vec<Schedule>> {
    let db = session.db;
    let after = request.after.as_ref().map_or("", ScheduleName::as_str).to_owned();
    let query = db.query(SCHEDULES).bind(after).bind(request.due).bind(db.now()).bind(rows(request.limit));
    let found = query.fetch_all(session.conn()).await?;
    found.iter().map(schedule).collect()
}

fn schedule(row: &PgRow) -> Done<Schedule> {
    Ok(Schedule {
        name: ScheduleName::new(row.try_get::<&str, _>(0)?)?,
        body: Payload::from(row.try_get::<Vec<u8>, _>(1)?),
        next: moment(row.try_get(2)?),
        version: VersionId::from_uuid(row.try_get(3)?),
    })
}

pub(crate) async fn delete_schedule(session: &mut Session<'_>, request: &DeleteSchedule) -> Done<bool> {
    let delete = session.db.query("DELETE FROM leasehold.schedules WHERE name = $1");
    let deleted = delete.bind(request.name.as_str().to_owned()).execute(session.conn()).await?;
    Ok(deleted.rows_affected() > 0)
}
