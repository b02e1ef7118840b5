//! One error for every operation on every store.

use std::error::Error as StdError;
use std::fmt;

/// The result of an operation on a queue.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is; callers branch on this and never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input breaks a rule; nothing reached the store (clause B1).
    InvalidInput,
    /// The input is well formed and larger than a limit, which the message names (clause B2).
    TooLarge,
    /// The named thing does not exist.
    NotFound,
    /// Somebody else changed the same thing first; read it again and decide anew.
    Conflict,
    /// This backend cannot do that; see its [`Capabilities`](crate::backend::Capabilities).
    Unsupported,
    /// The store did not answer and the request certainly had no effect. Transient.
    Unavailable,
    /// The request may or may not have taken effect (clause E1). Transient: repeat it, the ids and
    /// tokens that it carries make the repetition have the effect of one (clause E2).
    Unknown,
    /// The store has no room left; nothing was changed. Transient: it works again once there is room.
    Full,
    /// The store's data are of a newer version than this program, or not ours at all (clause B4).
    Incompatible,
    /// A record cannot be read (clause B3).
    Corrupt,
    /// A URL, option or server setting does not allow what was asked; the message says what to change.
    Config,
    /// The store refused our credentials or rights.
    Denied,
    /// The handle was closed.
    Closed,
    /// A defect of this program: please report it.
    Internal,
}

impl ErrorKind {
    /// Whether trying the same call again later can succeed with nothing else changed.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Unknown | Self::Full)
    }
}

/// What went wrong, where, and what to do about it.
///
/// `Display` gives one sentence with the operation and the backend where they are known. Neither it nor
/// `Debug` ever shows a connection URL's password (clause B5).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    backend: Option<&'static str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what happened and, where there is something to do, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), operation: None, backend: None, source: None }))
    }

    /// Short for [`ErrorKind::InvalidInput`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// An [`ErrorKind::Corrupt`] that says what of what is stored cannot be read.
    pub fn corrupt(why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, format!("what is stored cannot be read: {why}"))
    }

    /// An [`ErrorKind::TooLarge`] that names what was too large, by how much, and the limit.
    pub fn too_large(what: &str, size: usize, limit: usize, unit: &str) -> Self {
        Self::new(ErrorKind::TooLarge, format!("{what} has {size} {unit}; the limit is {limit} {unit}"))
    }

    /// Names the operation that failed; the first one named stays.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the backend that failed; the first one named stays.
    #[must_use]
    pub fn on(mut self, backend: &'static str) -> Self {
        self.0.backend.get_or_insert(backend);
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying the same call again later can succeed with nothing else changed.
    pub fn is_transient(&self) -> bool {
        self.0.kind.is_transient()
    }

    /// Whether the request itself is at fault, so that it fails however often it is made.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.0.kind, ErrorKind::InvalidInput | ErrorKind::TooLarge)
    }

    /// The operation that failed, by the name of its contract method.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The backend that failed.
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The sentence alone, with neither operation nor backend.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.operation, self.0.backend) {
            (Some(operation), Some(backend)) => write!(f, "{operation} on {backend}: {}", self.0.message)?,
            (Some(operation), None) => write!(f, "{operation}: {}", self.0.message)?,
            (None, Some(backend)) => write!(f, "{backend}: {}", self.0.message)?,
            (None, None) => f.write_str(&self.0.message)?,
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.0.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ", because {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_what() {
        let error = Error::too_large("the payload", 9, 8, "bytes").during("enqueue").on("memory");
        assert_eq!(error.to_string(), "enqueue on memory: the payload has 9 bytes; the limit is 8 bytes");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(!error.is_transient());
    }

    #[test]
    fn keeps_the_innermost_place_and_the_cause() {
        let error = Error::new(ErrorKind::Unknown, "no answer")
            .during("claim")
            .during("outer")
            .caused_by(std::io::Error::other("reset"));
        assert_eq!(error.operation(), Some("claim"));
        assert_eq!(format!("{error:?}"), "claim: no answer (unknown), because reset");
    }
}
