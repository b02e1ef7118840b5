//! From the driver's errors to ours: one mapping for the whole crate.

use std::fmt;

use leasehold_core::authoring::calls;
use leasehold_core::{Error, ErrorKind};
use redis::{ErrorKind as DriverKind, ParsingError, RedisError};

/// The name under which this backend shows itself.
pub(crate) const BACKEND: &str = "redis";

leasehold_core::fault!(RedisError);

impl From<ParsingError> for Fault {
    fn from(error: ParsingError) -> Self {
        corrupt(error)
    }
}

impl Fault {
    /// What it means to the caller of an operation that writes or does not.
    pub(crate) fn told(self, writes: bool) -> Error {
        match self {
            Self::Driver(error) => map(error, writes),
            Self::Ours(error) => error,
        }
        .on(BACKEND)
    }

    /// What it means to an operation that had already written a part of what it was to write.
    pub(crate) fn in_part(self) -> Self {
        Self::Ours(calls::in_part(self.told(true)))
    }
}

/// Something stored that cannot be read (clause B3).
pub(crate) fn corrupt(why: impl fmt::Display) -> Fault {
    Fault::Ours(Error::corrupt(why))
}

/// Whether the server has lost the script, which it may at any time.
pub(crate) fn lacks_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// What an error of the driver's or the server's means to the caller.
fn map(error: RedisError, writes: bool) -> Error {
    let lost = if writes { ErrorKind::Unknown } else { ErrorKind::Unavailable };
    let (kind, message) = match error.kind() {
        DriverKind::Io if error.is_connection_refusal() => (
            ErrorKind::Unavailable,
            "no server answers; see that one runs at this address, and repeat the call".into(),
        ),
        DriverKind::Io => (lost, "the connection broke; repeat the call".into()),
        DriverKind::AuthenticationFailed => (
            ErrorKind::Denied,
            "the server refused the credentials; check name and password in the URL".into(),
        ),
        DriverKind::InvalidClientConfig => {
            (ErrorKind::Config, "the driver refuses this configuration; see the cause".into())
        }
        DriverKind::Parse | DriverKind::UnexpectedReturnType => {
            (ErrorKind::Corrupt, "an answer of the server cannot be read".into())
        }
        _ => by_code(error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
    };
    Error::new(kind, message).caused_by(error)
}

/// What the server says, by the word that its error begins with.
fn by_code(code: &str, detail: &str) -> (ErrorKind, String) {
    use ErrorKind::{Config, Corrupt, Denied, Full, Incompatible, Internal, Unavailable};
    let (kind, advice) = match meant(code, detail) {
        "LEASEHOLDVERSION" => (
            Incompatible,
            "the namespace is of another version of Leasehold, or not of Leasehold: use a program that is as new, or \
             another namespace",
        ),
        "OOM" => (Full, "the server has reached its `maxmemory`: raise it or prune, and repeat the call"),
        "NOPERM" | "NOAUTH" | "WRONGPASS" => {
            (Denied, "give this user the rights that docs/guide/redis.md names")
        }
        "WRONGTYPE" => (Corrupt, "something else stands under a key of the namespace; remove it"),
        "READONLY" => (Unavailable, "this server is a replica by now; repeat the call when it has a primary"),
        "MISCONF" => (Unavailable, "the server cannot write to its disk; see to it and repeat the call"),
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS" | "BUSY" | "ASK" => {
            (Unavailable, "repeat the call")
        }
        "MOVED" | "CROSSSLOT" => (Config, "name the cluster's node that has the slot of the namespace"),
        _ => (Internal, "please report this"),
    };
    (kind, format!("{code} {detail}: {advice}"))
}

/// Servers before 7.0, and Valkey of missing rights, tell of what failed within a script in the text alone.
fn meant<'a>(code: &'a str, detail: &str) -> &'a str {
    let within = [
        ("WRONGTYPE", "WRONGTYPE"),
        ("OOM command not allowed", "OOM"),
        ("can't run this command", "NOPERM"),
        ("ACL failure in script", "NOPERM"),
        ("READONLY", "READONLY"),
        ("MISCONF", "MISCONF"),
    ];
    let told = within.into_iter().find(|(text, _)| code == "ERR" && detail.contains(text));
    told.map_or(code, |(_, code)| code)
}
