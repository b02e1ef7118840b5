//! From SQLite's errors to ours: one mapping for the whole crate.

use leasehold_core::authoring::calls;
use leasehold_core::{Error, ErrorKind};

/// The name under which this backend shows itself.
pub(crate) const BACKEND: &str = "sqlite";

leasehold_core::fault!(sqlx::Error);

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Driver(error) => map(error),
            Fault::Ours(error) => error,
        }
        .on(BACKEND)
    }
}

/// SQLite's codes for a file that another process locks, and for a full disk.
pub(crate) const BUSY: u32 = 5;
pub(crate) const FULL: u32 = 13;

/// SQLite's code for the error, without what only details it.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// What an error of SQLite's means to the caller. It is for calls that certainly had no effect; a commit that
/// failed is the writer's to judge.
pub(crate) fn map(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(inner) => {
            by_code(primary_code(&error).unwrap_or_default(), &inner.to_string(), inner.message())
        }
        sqlx::Error::PoolTimedOut => (ErrorKind::Unavailable, "all readers are busy; repeat the call".into()),
        sqlx::Error::PoolClosed => return calls::closed(),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
            (ErrorKind::Unavailable, format!("the connection broke ({error}); repeat the call"))
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, format!("a record cannot be read: {error}"))
        }
        sqlx::Error::Configuration(_) => (ErrorKind::Config, error.to_string()),
        _ => (ErrorKind::Internal, error.to_string()),
    };
    Error::new(kind, message).caused_by(error)
}

fn by_code(code: u32, told: &str, what: &str) -> (ErrorKind, String) {
    use ErrorKind::{Config, Corrupt, Denied, Full, Incompatible, Internal, Unavailable};
    let (kind, advice) = match code {
        BUSY | 6 => (Unavailable, "another process holds the file locked for too long; repeat the call"),
        7 => (Unavailable, "there is no memory left; repeat the call when there is"),
        9 | 15 | 17 => (Unavailable, "it was interrupted; repeat the call"),
        10 => (Unavailable, "the disk or the file system failed; see to it and repeat the call"),
        FULL => (Full, "make room on the disk and repeat the call"),
        3 | 8 | 23 => (Denied, "give this process the right to write to the file and to its folder"),
        14 => (Config, "check that the path names a file in a folder that exists and may be written to"),
        11 => (Corrupt, "the file is damaged: check it with PRAGMA integrity_check and restore a backup"),
        26 => (Incompatible, "the file is no SQLite database; give the path of one, or of a new file"),
        1 if what.starts_with("no such table: leasehold_") => {
            (Incompatible, "the tables are missing: call `setup` on this store first")
        }
        1 if what.starts_with("no such column") => {
            (Incompatible, "the tables are of another version: call `setup` on this store first")
        }
        _ => (Internal, "please report this"),
    };
    (kind, format!("{told}: {advice}"))
}
