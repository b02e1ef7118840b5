use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::VersionId;
use crate::job::Payload;
use crate::name::RegisterName;
use crate::time::Timestamp;

/// What a register is kept for. Each has names of its own.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Space {
    /// Schedules, by name (F2).
    Schedule,
    /// Locks, by name (F7).
    Lock,
    /// Rates of a program's own, by key (F8).
    Rate,
    /// Rates of queues, by the queue's name (F8).
    QueueRate,
    /// Flows, by id (F9).
    Flow,
    /// What the jobs of a flow depend on, in parts, by the flow's id and the part's number (F9).
    FlowPlan,
}

impl Space {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A small record that a fleet shares, as its store keeps it: a schedule, a lock, a rate. What it says is in `body`,
/// which a store never reads; what a store looks for is outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// What it is kept for.
    pub space: Space,
    /// Its name within its space.
    pub name: RegisterName,
    /// What it says, kept verbatim.
    pub body: Payload,
    /// When it is next due, as a schedule at its next tick; none if it is not.
    pub next: Option<Timestamp>,
    /// When it may be removed; none if never.
    pub expires: Option<Timestamp>,
    /// Names the write that made it so; what the next write is fenced by.
    pub version: VersionId,
}

/// Asks for a register to be written.
#[derive(Debug, Clone)]
pub struct PutRegister {
    /// What it is kept for.
    pub space: Space,
    /// Its name.
    pub name: RegisterName,
    /// What it says.
    pub body: Payload,
    /// When it is next due.
    pub next: Option<Timestamp>,
    /// When it may be removed.
    pub expires: Option<Timestamp>,
    /// Names this write; make a new one for each, and repeat it when the answer was lost (E2).
    pub version: VersionId,
    /// The version that it must have now; none if it must not exist.
    pub expected: Option<VersionId>,
}

impl PutRegister {
    /// A write that says this, is never due and never removed.
    pub fn new(space: Space, name: RegisterName, body: Payload, expected: Option<VersionId>) -> Self {
        Self { space, name, body, next: None, expires: None, version: VersionId::generate(), expected }
    }

    /// A write that leaves what a register says and has it due at another moment.
    pub fn put_off(register: Register, until: Timestamp) -> Self {
        let Register { space, name, body, version, .. } = register;
        Self { next: Some(until), ..Self::new(space, name, body, Some(version)) }
    }

    /// Whether it is to be written where this version is there: not if that is its own, as after a call that was
    /// repeated.
    ///
    /// # Errors
    /// [`conflict`](Self::conflict) if it is another one than was expected.
    pub fn replaces(&self, there: Option<VersionId>) -> Result<bool> {
        if there == Some(self.version) {
            return Ok(false);
        }
        if there == self.expected { Ok(true) } else { Err(self.conflict()) }
    }

    /// Somebody else has written the register since.
    pub fn conflict(&self) -> Error {
        let why = format!(
            "the {} {:?} was written by somebody else; read it and decide anew",
            self.space, self.name
        );
        Error::new(ErrorKind::Conflict, why)
    }
}

impl From<PutRegister> for Register {
    fn from(put: PutRegister) -> Self {
        let PutRegister { space, name, body, next, expires, version, expected: _ } = put;
        Self { space, name, body, next, expires, version }
    }
}

/// Asks for the registers of a space, by name.
#[derive(Debug, Clone)]
pub struct Registers {
    /// Which space.
    pub space: Space,
    /// Only the one of this name.
    pub name: Option<RegisterName>,
    /// Only those that are due.
    pub due: bool,
    /// Only names after this one.
    pub after: Option<RegisterName>,
    /// At most this many.
    pub limit: usize,
}

impl Registers {
    /// The first ones of a space.
    pub fn all(space: Space, limit: usize) -> Self {
        Self { space, name: None, due: false, after: None, limit }
    }

    /// The first ones of a space that are due.
    pub fn due(space: Space, limit: usize) -> Self {
        Self { due: true, ..Self::all(space, limit) }
    }

    /// The one of this name.
    pub fn named(space: Space, name: RegisterName) -> Self {
        Self { name: Some(name), ..Self::all(space, 1) }
    }

    /// Whether it asks for this one, leaving aside how many.
    pub fn takes(&self, register: &Register, now: Timestamp) -> bool {
        register.space == self.space
            && self.name.as_ref().is_none_or(|name| *name == register.name)
            && self.after.as_ref().is_none_or(|after| register.name > *after)
            && (!self.due || register.next.is_some_and(|next| next <= now))
    }
}

/// Registers, and the hour by the store's clock at some moment of the call that showed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterPage {
    /// The hour, by which whoever read them decides.
    pub hour: Timestamp,
    /// The registers, by name.
    pub registers: Vec<Register>,
}

/// Asks for a register to be removed.
#[derive(Debug, Clone)]
pub struct DeleteRegister {
    /// What it is kept for.
    pub space: Space,
    /// Its name.
    pub name: RegisterName,
    /// The version that it must have; none for whichever it has.
    pub expected: Option<VersionId>,
}

impl DeleteRegister {
    /// Removes it, whatever it says by now.
    pub fn named(space: Space, name: RegisterName) -> Self {
        Self { space, name, expected: None }
    }

    /// Removes it if it still is as it was read.
    pub fn as_read(register: &Register) -> Self {
        Self { expected: Some(register.version), ..Self::named(register.space, register.name.clone()) }
    }

    /// Whether one of this version is to be removed.
    pub fn takes(&self, version: VersionId) -> bool {
        self.expected.is_none_or(|expected| expected == version)
    }
}
