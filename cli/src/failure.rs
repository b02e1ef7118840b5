//! How a command ends: the exit codes, and what is said of a failure.

use std::io::{self, Write};
use std::process::ExitCode;

use leasehold::{Error, ErrorKind};

/// It was done only in part, or not at all.
pub(crate) const FAILED: u8 = 1;
/// The command line, the configuration or the input cannot be.
pub(crate) const USAGE: u8 = 2;
/// There is no such thing.
pub(crate) const NOT_FOUND: u8 = 3;
/// The store cannot be reached.
pub(crate) const UNREACHABLE: u8 = 4;
/// Somebody else was quicker.
pub(crate) const CONFLICT: u8 = 5;

/// What the command's help says of them.
pub(crate) const CODES: &str = "Exit codes: 0 done, 1 failed or done in part, 2 wrong usage, 3 not found, 4 store unreachable, \
                                5 conflict or lost.";

/// Why a command ends otherwise than well.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// What is said of it; none if that was said already, or nobody reads it.
    message: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, message)
    }

    /// It ends with this code, and has said why.
    pub(crate) fn said(code: u8) -> Self {
        Self { code, message: None }
    }

    /// Says why, unless nobody is to hear of it.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            let _ = writeln!(io::stderr(), "leasehold: {message}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::TooLarge | ErrorKind::Config | ErrorKind::Unsupported => {
                USAGE
            }
            ErrorKind::NotFound => NOT_FOUND,
            ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Closed => UNREACHABLE,
            ErrorKind::Conflict => CONFLICT,
            _ => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever read the output has seen enough, as `head` does.
            io::ErrorKind::BrokenPipe => Self::said(0),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => io::Error::from(kind).into(),
            None => Self::failed(error.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or_default())
    }
}
