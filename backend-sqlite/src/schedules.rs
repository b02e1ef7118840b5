//! Keeps schedules: see `Backend::put_schedule`, `schedules` and `delete_schedule`.

use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Error, ErrorKind, Payload, ScheduleName, Timestamp};
use sqlx::SqliteConnection;

use crate::error::Done;
use crate::writer::Session;

pub(crate) async fn put_schedule(session: &mut Session, request: PutSchedule) -> Done<u64> {
    let name = request.name.as_str();
    let next = request.next.map(Timestamp::as_millis);
    let found: Option<(i64, bool)> =
        sqlx::query_as("SELECT version, body IS ?2 AND next IS ?3 FROM leasehold_schedules WHERE name = ?1")
            .bind(name)
            .bind(request.body.as_bytes())
            .bind(next)
            .fetch_optional(&mut session.conn)
            .await?;
    let (found, same) = found.map_or((None, false), |(version, same)| (Some(version.cast_unsigned()), same));
    if let Some(version) = found.filter(|_| same && found != request.expected) {
        return Ok(version);
    }
    if found != request.expected {
        let found = found.map_or_else(|| "none".into(), |version| version.to_string());
        let expected = request.expected.map_or_else(|| "none".into(), |version| version.to_string());
        let why =
            format!("the schedule {name:?} has version {found}, not {expected}: read it and decide anew");
        return Err(Error::new(ErrorKind::Conflict, why).into());
    }
    // Of all schedules, so that one which was removed and made anew does not get a version it had before.
    let version: i64 = sqlx::query_scalar(
        "INSERT INTO leasehold_meta VALUES ('schedule_version', 1)
         ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value",
    )
    .fetch_one(&mut session.conn)
    .await?;
    sqlx::query(
        "INSERT INTO leasehold_schedules (name, body, next, version) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET body = ?2, next = ?3, version = ?4",
    )
    .bind(name)
    .bind(request.body.as_bytes())
    .bind(next)
    .bind(version)
    .execute(&mut session.conn)
    .await?;
    Ok(version.cast_unsigned())
}

pub(crate) async fn schedules(
    conn: &mut SqliteConnection,
    request: Schedules,
    now: Timestamp,
) -> Done<Vec<Schedule>> {
    let rows: Vec<(String, Vec<u8>, Option<i64>, i64)> = sqlx::query_as(
        "SELECT name, body, next, version FROM leasehold_schedules
         WHERE name > ?1 AND (?2 IS NULL OR next <= ?2) ORDER BY name LIMIT ?3",
    )
    .bind(request.after.as_ref().map_or("", ScheduleName::as_str))
    .bind(request.due.then_some(now.as_millis()))
    .bind(i64::try_from(request.limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await?;
    let schedule = |(name, body, next, version): (String, Vec<u8>, Option<i64>, i64)| {
        Ok(Schedule {
            name: ScheduleName::new(name)?,
            body: Payload::from(body),
            next: next.map(Timestamp::from_millis),
            version: version.cast_unsigned(),
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
