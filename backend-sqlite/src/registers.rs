//! Keeps registers: see `Backend::put_register`, `registers` and `delete_register`.

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{DeleteRegister, PutRegister, Register, RegisterPage, Registers, Space};
use leasehold_core::{Payload, RegisterName, Timestamp, VersionId};
use sqlx::SqliteConnection;

use crate::error::Done;
use crate::writer::Session;

pub(crate) async fn put_register(session: &mut Session, request: PutRegister) -> Done<()> {
    let there: Option<uuid::Uuid> =
        sqlx::query_scalar("SELECT version FROM leasehold_registers WHERE space = ? AND name = ?")
            .bind(request.space.as_str())
            .bind(request.name.as_str())
            .fetch_optional(&mut session.conn)
            .await?;
    if !request.replaces(there.map(VersionId::from_uuid))? {
        return Ok(());
    }
    let Register { space, name, body, next, expires, version } = request.into();
    sqlx::query(
        "INSERT INTO leasehold_registers (space, name, body, next, expires, version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET body = ?3, next = ?4, expires = ?5, version = ?6",
    )
    .bind(space.as_str())
    .bind(name.as_str())
    .bind(body.as_bytes())
    .bind(next.map(Timestamp::as_millis))
    .bind(expires.map(Timestamp::as_millis))
    .bind(*version.as_uuid())
    .execute(&mut session.conn)
    .await?;
    Ok(())
}

/// A register's name, body, when it is due, when it expires, and its version.
type Row = (String, Vec<u8>, Option<i64>, Option<i64>, uuid::Uuid);

pub(crate) async fn registers(
    conn: &mut SqliteConnection,
    request: Registers,
    now: Timestamp,
) -> Done<RegisterPage> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT name, body, next, expires, version FROM leasehold_registers
         WHERE space = ?1 AND name > ?2 AND (?3 IS NULL OR name = ?3) AND (?4 IS NULL OR next <= ?4)
         ORDER BY name LIMIT ?5",
    )
    .bind(request.space.as_str())
    .bind(request.after.as_ref().map_or("", RegisterName::as_str))
    .bind(request.name.as_ref().map(RegisterName::as_str))
    .bind(request.due.then_some(now.as_millis()))
    .bind(at_most(request.limit))
    .fetch_all(conn)
    .await?;
    let registers = rows.into_iter().map(|row| read(request.space, row)).collect::<Done<_>>()?;
    Ok(RegisterPage { hour: now, registers })
}

fn read(space: Space, (name, body, next, expires, version): Row) -> Done<Register> {
    Ok(Register {
        space,
        name: RegisterName::new(name)?,
        body: Payload::from(body),
        next: next.map(Timestamp::from_millis),
        expires: expires.map(Timestamp::from_millis),
        version: VersionId::from_uuid(version),
    })
}

pub(crate) async fn delete_register(session: &mut Session, request: DeleteRegister) -> Done<bool> {
    let deleted = sqlx::query(
        "DELETE FROM leasehold_registers WHERE space = ?1 AND name = ?2 AND (?3 IS NULL OR version = ?3)",
    )
    .bind(request.space.as_str())
    .bind(request.name.as_str())
    .bind(request.expected.map(|version| *version.as_uuid()))
    .execute(&mut session.conn)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
