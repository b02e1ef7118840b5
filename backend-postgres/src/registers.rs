//! Keeps registers: see `Backend::put_register`, `registers` and `delete_register`.

use leasehold_core::backend::{DeleteRegister, PutRegister, Register, RegisterPage, Registers, Space};
use leasehold_core::{Payload, RegisterName, Timestamp, VersionId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Done;
use crate::session::{Session, moment, rows};

pub(crate) async fn put_register(session: &mut Session<'_>, request: &PutRegister) -> Done<()> {
    let written: bool = session
        .db
        .query("SELECT leasehold.put_register($1, $2, $3, $4, $5, $6, $7)")
        .bind(request.space.as_str())
        .bind(request.name.as_str().to_owned())
        .bind(request.body.as_bytes().to_vec())
        .bind(request.next.map(Timestamp::as_millis))
        .bind(request.expires.map(Timestamp::as_millis))
        .bind(*request.version.as_uuid())
        .bind(request.expected.map(|version| *version.as_uuid()))
        .fetch_one(session.conn())
        .await?
        .try_get(0)?;
    if written { Ok(()) } else { Err(request.conflict().into()) }
}

/// The hour stands in every row, and alone in one where there is no register.
const REGISTERS: &str = "SELECT h.hour, r.name, r.body, r.next, r.expires, r.version
    FROM (SELECT coalesce($1, leasehold.hour()) AS hour OFFSET 0) AS h LEFT JOIN LATERAL (
        SELECT * FROM leasehold.registers x
        WHERE x.space = $2 AND x.name > $3 AND ($4::text IS NULL OR x.name = $4) AND (NOT $5 OR x.next <= h.hour)
        ORDER BY x.name LIMIT $6) AS r ON true
    ORDER BY r.name";

pub(crate) async fn registers(session: &mut Session<'_>, request: &Registers) -> Done<RegisterPage> {
    let db = session.db;
    let name = |name: &Option<RegisterName>| name.as_ref().map(|name| name.as_str().to_owned());
    let found = db
        .query(REGISTERS)
        .bind(db.now())
        .bind(request.space.as_str())
        .bind(name(&request.after).unwrap_or_default())
        .bind(name(&request.name))
        .bind(request.due)
        .bind(rows(request.limit))
        .fetch_all(session.conn())
        .await?;
    let hour = found.first().map_or(Ok(0), |row| row.try_get(0))?;
    let registers = found.iter().filter_map(|row| register(request.space, row).transpose());
    Ok(RegisterPage { hour: Timestamp::from_millis(hour), registers: registers.collect::<Done<_>>()? })
}

fn register(space: Space, row: &PgRow) -> Done<Option<Register>> {
    let Some(name) = row.try_get::<Option<&str>, _>(1)? else { return Ok(None) };
    Ok(Some(Register {
        space,
        name: RegisterName::new(name)?,
        body: Payload::from(row.try_get::<Vec<u8>, _>(2)?),
        next: moment(row.try_get(3)?),
        expires: moment(row.try_get(4)?),
        version: VersionId::from_uuid(row.try_get(5)?),
    }))
}

pub(crate) async fn delete_register(session: &mut Session<'_>, request: &DeleteRegister) -> Done<bool> {
    const DELETE: &str = "DELETE FROM leasehold.registers
        WHERE space = $1 AND name = $2 AND ($3::uuid IS NULL OR version = $3)";
    let delete = session.db.query(DELETE).bind(request.space.as_str()).bind(request.name.as_str().to_owned());
    let delete = delete.bind(request.expected.map(|version| *version.as_uuid()));
    Ok(delete.execute(session.conn()).await?.rows_affected() > 0)
}
