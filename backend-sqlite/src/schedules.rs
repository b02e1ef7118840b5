//! Keeps schedules: see `Backend::put_schedule`, `schedules` and `delete_schedule`.

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Payload, ScheduleName, Timestamp, VersionId};
use sqlx::SqliteConnection;

use crate::error::Done;
use crate::writer::Session;

pub(crate) async fn put_schedule(session: &mut Session, request: PutSchedule) -> Done<()> {
    let there: Option<uuid::Uuid> =
        sqlx::query_scalar("SELECT version FROM leasehold_schedules WHERE name = ?")
            .bind(request.name.as_str())
            .fetch_optional(&mut session.conn)
            .await?;
    if !request.replaces(there.map(VersionId::from_uuid))? {
        return Ok(());
    }
    let PutSchedule { name, body, next, version, .. } = request;
    sqlx::query(
        "INSERT INTO leasehold_schedules (name, body, next, version) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET body = ?2, next = ?3, version = ?4",
    )
    .bind(name.as_str())
    .bind(body.as_bytes())
    .bind(next.map(Timestamp::as_millis))
    .bind(*version.as_uuid())
    .execute(&mut session.conn)
    .await?;
    Ok(())
}

pub(crate) async fn schedules(
    conn: &mut SqliteConnection,
    request: Schedules,
    now: Timestamp,
) -> Done<Vec<Schedule>> {
    let rows: Vec<(String, Vec<u8>, Option<i64>, uuid::Uuid)> = sqlx::query_as(
        "SELECT name, body, next, version FROM leasehold_schedules
         WHERE name > ?1 AND (?2 IS NULL OR next <= ?2) ORDER BY name LIMIT ?3",
    )
    .bind(request.after.as_ref().map_or("", ScheduleName::as_str))
    .bind(request.due.then_some(now.as_millis()))
    .bind(at_most(request.limit))
    .fetch_all(conn)
    .await?;
    let schedule = |(name, body, next, version): (String, Vec<u8>, Option<i64>, uuid::Uuid)| {
        Ok(Schedule {
            name: ScheduleName::new(name)?,
            body: Payload::from(body),
            next: next.map(Timestamp::from_millis),
            version: VersionId::from_uuid(version),
        })
    };
    rows.into_iter().map(schedule).collect()
}

pub(crate) async fn delete_schedule(session: &mut Session, request: DeleteSchedule) -> Done<bool> {
    let deleted = sqlx::query("DELETE FROM leasehold_schedules WHERE name = ?")
        .bind(request.name.as_str())
        .execute(&mut session.conn)
        .await?;
    Ok(deleted.rows_affected() > 0)
}
