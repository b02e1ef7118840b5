use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::VersionId;
use crate::job::Payload;
use crate::name::ScheduleName;
use crate::time::Timestamp;

/// A schedule as its store keeps it. What it does is in `body`, which a store never reads; when it is next
/// due is outside, so that a store can look for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name.
    pub name: ScheduleName,
    /// Its rule, job and options, kept verbatim.
    pub body: Payload,
    /// When it next fires; none while it is paused or exhausted.
    pub next: Option<Timestamp>,
    /// Names the write that made it so; what the next write is fenced by.
    pub version: VersionId,
}

/// Asks for a schedule to be written.
#[derive(Debug, Clone)]
pub struct PutSchedule {
    /// Its name.
    pub name: ScheduleName,
    /// Its rule, job and options.
    pub body: Payload,
    /// When it next fires.
    pub next: Option<Timestamp>,
    /// Names this write; make a new one for each, and repeat it when the answer was lost (E2).
    pub version: VersionId,
    /// The version that it must have now; none if it must not exist.
    pub expected: Option<VersionId>,
}

impl PutSchedule {
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

    /// Somebody else has written the schedule since.
    pub fn conflict(&self) -> Error {
        let why =
            format!("the schedule {:?} was written by somebody else; read it and decide anew", self.name);
        Error::new(ErrorKind::Conflict, why)
    }
}

/// Asks for schedules, by name.
#[derive(Debug, Clone)]
pub struct Schedules {
    /// Only those that are due.
    pub due: bool,
    /// Only names after this one.
    pub after: Option<ScheduleName>,
    /// At most this many.
    pub limit: usize,
}

/// Asks for a schedule to be removed.
#[derive(Debug, Clone)]
pub struct DeleteSchedule {
    /// Its name.
    pub name: ScheduleName,
}
