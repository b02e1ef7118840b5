//! Keeps registers: see `Backend::put_register`, `registers` and `delete_register`.

use leasehold_core::backend::{DeleteRegister, PutRegister, Register, RegisterPage, Registers, Space};
use leasehold_core::{Payload, RegisterName, Timestamp, VersionId};
use redis::Cmd;

use crate::error::{Done, corrupt};
use crate::scripts::{DELETE_REGISTER, PUT_REGISTER, REGISTERS};
use crate::session::{Db, moment};

pub(crate) async fn put_register(db: &Db, request: PutRegister) -> Done<()> {
    let moment = |at: Option<Timestamp>| at.map_or_else(String::new, |at| at.as_millis().to_string());
    let push = |command: &mut Cmd| {
        command.arg(request.space.as_str()).arg(request.name.as_str()).arg(request.body.as_bytes());
        command.arg(moment(request.next)).arg(moment(request.expires));
        command.arg(request.version.to_string()).arg(version(request.expected));
    };
    if db.run(&PUT_REGISTER, push).await? { Ok(()) } else { Err(request.conflict().into()) }
}

/// A register's name, body, when it is due, when it expires, and its version.
type Kept = (String, Vec<u8>, String, String, String);

pub(crate) async fn registers(db: &Db, request: Registers) -> Done<RegisterPage> {
    let name = |name: &Option<RegisterName>| name.as_ref().map_or("", RegisterName::as_str).to_owned();
    let push = |command: &mut Cmd| {
        command.arg(request.space.as_str()).arg(u8::from(request.due)).arg(name(&request.name));
        command.arg(name(&request.after)).arg(request.limit);
    };
    let (hour, found): (i64, Vec<Kept>) = db.run(&REGISTERS, push).await?;
    let registers = found.into_iter().map(|kept| read(request.space, kept)).collect::<Done<_>>()?;
    Ok(RegisterPage { hour: moment(hour), registers })
}

fn read(space: Space, (name, body, next, expires, version): Kept) -> Done<Register> {
    let at = |text: String| match text.as_str() {
        "" => Ok(None),
        millis => millis.parse().map(|millis| Some(moment(millis))).map_err(corrupt),
    };
    Ok(Register {
        space,
        name: RegisterName::new(name)?,
        body: Payload::from_bytes(body),
        next: at(next)?,
        expires: at(expires)?,
        version: version.parse()?,
    })
}

fn version(version: Option<VersionId>) -> String {
    version.map_or_else(String::new, |version| version.to_string())
}

pub(crate) async fn delete_register(db: &Db, request: DeleteRegister) -> Done<bool> {
    db.run(&DELETE_REGISTER, |command| {
        command.arg(request.space.as_str()).arg(request.name.as_str()).arg(version(request.expected));
    })
    .await
}
