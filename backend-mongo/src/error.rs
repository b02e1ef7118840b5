//! From the driver's errors to ours: one mapping for the whole crate.

use leasehold_core::authoring::calls::closed;
use leasehold_core::{Error, ErrorKind};
use mongodb::error::{Error as Driver, ErrorKind as DriverKind, WriteFailure};

/// The name under which this backend shows itself.
pub(crate) const BACKEND: &str = "mongo";

/// The code of a key that is there already.
pub(crate) const DUPLICATE: i32 = 11_000;

leasehold_core::fault!(Driver);

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Driver(error) => map(error),
            Fault::Ours(error) => error,
        }
        .on(BACKEND)
    }
}

impl Fault {
    /// Whether a transaction that met this may be made again from its beginning.
    pub(crate) fn may_begin_again(&self) -> bool {
        match self {
            Self::Driver(error) => {
                error.contains_label(mongodb::error::TRANSIENT_TRANSACTION_ERROR) && code(error).is_some()
            }
            Self::Ours(_) => false,
        }
    }
}

/// The code that the server gave, if it was the server that failed.
pub(crate) fn code(error: &Driver) -> Option<i32> {
    match error.kind.as_ref() {
        DriverKind::Command(error) => Some(error.code),
        DriverKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        DriverKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        DriverKind::InsertMany(error) => error.write_concern_error.as_ref().map(|error| error.code),
        _ => None,
    }
}

/// What an error of the driver's means to the caller.
fn map(error: Driver) -> Error {
    use ErrorKind::{Config, Corrupt, Denied, Internal, Unavailable, Unknown};
    let (kind, message) = match error.kind.as_ref() {
        DriverKind::ServerSelection { .. } => {
            (Unavailable, "no server answers; see that one runs at this address, and repeat the call".into())
        }
        DriverKind::Authentication { .. } => {
            (Denied, "the server refused the credentials; check name, password and authSource".into())
        }
        DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. } => {
            (Config, "the driver refuses this configuration; see the cause".into())
        }
        DriverKind::DnsResolve { .. } => (Unavailable, "the server's name cannot be resolved".into()),
        DriverKind::Io(_) | DriverKind::ConnectionPoolCleared { .. } => {
            (Unknown, "the connection broke; repeat the call".into())
        }
        DriverKind::InvalidResponse { .. } | DriverKind::Bson(_) => {
            (Corrupt, "an answer of the server cannot be read".into())
        }
        DriverKind::Shutdown => return closed(),
        _ => match code(&error) {
            Some(code) => by_code(code, &text(&error)),
            None => (Internal, text(&error)),
        },
    };
    Error::new(kind, message).caused_by(error)
}

fn text(error: &Driver) -> String {
    match error.kind.as_ref() {
        DriverKind::Command(error) => error.message.clone(),
        other => other.to_string(),
    }
}

/// What a code of the server's means.
pub(crate) fn by_code(code: i32, what: &str) -> (ErrorKind, String) {
    use ErrorKind::{Denied, Full, Internal, TooLarge, Unavailable, Unknown};
    let (kind, advice) = match code {
        13 | 18 | 31 | 33 => (Denied, "give this user the role readWrite on the database"),
        14_031 | 12_501 => (Full, "make room on the server's disk and repeat the call"),
        388 => (TooLarge, "enqueue fewer jobs in one transaction"),
        112 | 251 | 246 => (Unavailable, "others wrote the same at once; repeat the call"),
        // Step-downs, shutdowns, time-outs and write concerns that were not met in time: a write may have landed.
        // So may a cursor, a plan or a lock that a step-down, a rollback or an index being dropped took away.
        6 | 7 | 24 | 43 | 46 | 50 | 64 | 89 | 91 | 133 | 134 | 175 | 189 | 262 | 290 | 365 | 9_001
        | 10_058 | 10_107 | 11_600 | 11_601 | 11_602 | 13_435 | 13_436 => (Unknown, "repeat the call"),
        _ => (Internal, "please report this"),
    };
    (kind, format!("{what} (MongoDB code {code}): {advice}"))
}
