//! How a case says that the contract was broken.

use std::fmt;
use std::panic::Location;

use leasehold_core::Error;

use crate::case::Report;
use crate::harness::CannotRun;

/// What a case answers: nothing to say, or where and how the contract was broken.
pub(crate) type Kept<T = ()> = Result<T, Breach>;

/// What a verb of the [`Bench`](crate::bench::Bench) answers.
pub(crate) type Done<T = ()> = Result<T, Trouble>;

/// A broken promise, and the line of the case that found it; or why the case cannot go on.
#[derive(Debug)]
pub(crate) struct Breach {
    at: &'static Location<'static>,
    what: String,
    /// What kept the case from judging at all.
    kept_from: Option<CannotRun>,
}

impl Breach {
    /// The promise is broken in this way, as the calling line found.
    #[track_caller]
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { at: Location::caller(), what: what.into(), kept_from: None }
    }

    /// How the case went that ends with this.
    pub(crate) fn report(self) -> Report {
        match self.kept_from {
            Some(CannotRun::Missing(what)) => Report::CannotRun(what),
            Some(CannotRun::Unable(why)) => Report::NotSupported(format!("not supported: {why}")),
            Some(CannotRun::Failed(_)) | None => Report::Broken(self.to_string()),
        }
    }

    /// The same, and what was going on.
    pub(crate) fn during(self, what: &str) -> Self {
        Self { what: format!("{what}: {}", self.what), ..self }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  at {}:{}", self.what, self.at.file(), self.at.line())
    }
}

/// What went wrong inside a verb, before it is known which line of which case had called it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The backend answered with an error.
    Store(Error),
    /// The backend's answer was not what the verb needs to go on.
    Unmet(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

// `?` hands on the place where it stands, so each conversion below names the line of the case.
impl From<Error> for Breach {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::new(format!("the backend answered with an error: {error:?}"))
    }
}

impl From<CannotRun> for Breach {
    #[track_caller]
    fn from(why: CannotRun) -> Self {
        let breach = Self::new(why.to_string());
        Self { kept_from: Some(why), ..breach }
    }
}

impl From<Trouble> for Breach {
    #[track_caller]
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Store(error) => Self::from(error),
            Trouble::Unmet(what) => Self::new(what),
        }
    }
}

impl From<tokio::task::JoinError> for Breach {
    #[track_caller]
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(format!("a task of the case ended early: {error}"))
    }
}

/// Ends the case as broken, with these words, unless the condition holds.
macro_rules! must {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::breach::Breach::new(format!($($why)+)));
        }
    };
}

/// Ends the case as broken, showing both sides, unless they are equal.
macro_rules! must_eq {
    ($found:expr, $wanted:expr) => {
        $crate::breach::must_eq!($found, $wanted, "{}", stringify!($found))
    };
    ($found:expr, $wanted:expr, $($why:tt)+) => {
        match (&$found, &$wanted) {
            (found, wanted) if *found == *wanted => {}
            (found, wanted) => {
                let why = format!($($why)+);
                return Err($crate::breach::Breach::new(format!("{why}\n   found {found:?}\n  wanted {wanted:?}")));
            }
        }
    };
}

/// Ends the case as broken, showing what was found, unless it has this shape.
macro_rules! must_be {
    ($found:expr, $shape:pat $(if $guard:expr)?) => {
        match &$found {
            $shape $(if $guard)? => {}
            found => {
                let wanted = stringify!($shape $(if $guard)?);
                return Err($crate::breach::Breach::new(format!(
                    "{}\n   found {found:?}\n  wanted {wanted}", stringify!($found)
                )));
            }
        }
    };
}

pub(crate) use {must, must_be, must_eq};
