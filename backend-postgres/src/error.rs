//! From the driver's errors to ours: one mapping for the whole crate.

use leasehold_core::authoring::calls::closed;
use leasehold_core::{Error, ErrorKind};

/// The name under which this backend shows itself.
pub(crate) const BACKEND: &str = "postgres";

leasehold_core::fault!(sqlx::Error);

impl Fault {
    /// Whether the server took everything back because of others, so that the same may be tried again: a conflict, a
    /// deadlock, or a key that another call of the same moment wrote.
    pub(crate) fn may_begin_again(&self) -> bool {
        matches!(self.code().as_deref(), Some("40001" | "40P01" | "23505"))
    }

    /// Whether the connection is as good as before: the server answered, or nothing was asked.
    pub(crate) fn leaves_connection_whole(&self) -> bool {
        match self {
            Self::Driver(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                // The server is about to close it, or has lost what was prepared.
                !code.starts_with("57P") && !code.starts_with("08") && code != "26000" && code != "0A000"
            }
            Self::Driver(error) => {
                matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound)
            }
            Self::Ours(_) => true,
        }
    }

    fn code(&self) -> Option<String> {
        match self {
            Self::Driver(sqlx::Error::Database(error)) => Some(error.code()?.into_owned()),
            _ => None,
        }
    }

    /// What it means to the caller of a call that may have `sent` something that changes something (clause E1).
    pub(crate) fn told(self, sent: bool) -> Error {
        match self {
            Self::Driver(error) => map(error, sent),
            Self::Ours(error) => error,
        }
        .on(BACKEND)
    }
}

const NO_TLS: &str = "no encrypted connection came about; check sslmode and sslrootcert";

/// Whether the two could not agree on a certificate, which comes as an error of the connection.
fn is_of_tls(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData && error.to_string().contains("certificate")
}

fn map(error: sqlx::Error, sent: bool) -> Error {
    let broke = if sent { ErrorKind::Unknown } else { ErrorKind::Unavailable };
    let (kind, message) = match &error {
        sqlx::Error::Database(inner) => by_code(&inner.code().unwrap_or_default(), inner.message(), broke),
        sqlx::Error::Io(io) if is_of_tls(io) => (ErrorKind::Config, NO_TLS.into()),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            (broke, "the server cannot be reached, or the connection broke; repeat the call".into())
        }
        sqlx::Error::Tls(_) => (ErrorKind::Config, NO_TLS.into()),
        sqlx::Error::PoolClosed => return closed(),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, "a record, or our schema, is not as it should be".into())
        }
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
            (ErrorKind::Config, "the driver refuses this configuration".into())
        }
        _ => (ErrorKind::Internal, error.to_string()),
    };
    Error::new(kind, message).caused_by(error)
}

/// What a code of the server's means. It took everything back then, but where it was about to end.
fn by_code(code: &str, what: &str, broke: ErrorKind) -> (ErrorKind, String) {
    use ErrorKind::{Config, Denied, Full, Incompatible, Internal, Unavailable};
    let (kind, advice) = match code {
        "40001" | "40P01" | "23505" => (Unavailable, "others wrote the same at once; repeat the call"),
        "55P03" => (Unavailable, "somebody holds what it needs locked; repeat the call"),
        "57014" => (Unavailable, "it took too long, or somebody cancelled it; repeat the call"),
        "57P03" => (Unavailable, "the server is starting up or shutting down; repeat the call"),
        "25006" => (Unavailable, "this server takes no writes: it is a standby, or set to read only"),
        "53300" => {
            (Unavailable, "the server has no connection left; raise max_connections or lower `connections`")
        }
        "53100" => (Full, "make room on the server's disk and repeat the call"),
        "53200" | "53000" | "53400" => (Unavailable, "the server lacks memory or the like; repeat the call"),
        "28000" | "28P01" => (Denied, "check user, password and pg_hba.conf"),
        "42501" => (Denied, "give this user the rights to the schema, its tables and functions"),
        "3D000" => (Config, "there is no such database; create it first"),
        "3F000" | "42P01" | "42883" | "42703" => {
            (Incompatible, "the tables are missing or of another version: call `setup` on this store first")
        }
        "26000" | "42P05" | "08P01" => {
            (Config, "a pooler in transaction mode seems to stand in between: say `pooler=true` in the URL")
        }
        "0A000" => (broke, "the schema was changed meanwhile; repeat the call"),
        code if code.starts_with("08") || code.starts_with("57P") || code.starts_with("58") => {
            (broke, "the server ended the connection; repeat the call")
        }
        code if code.starts_with("XX") => (Internal, "the server found data that are damaged; see its log"),
        _ => (Internal, "please report this"),
    };
    (kind, format!("{what} (SQLSTATE {code}): {advice}"))
}
