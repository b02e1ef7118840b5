use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::{Backend, Error, ManualClock};

use crate::processes::CutPoint;

/// Opens the backend that is to be judged.
///
/// That is all an author of a backend writes. See the [crate](crate) for a whole example.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Opens the store of this place, ready for use, and makes it first if it is not there.
    ///
    /// - A place is isolated: nothing done in one is seen in another.
    /// - The same place again gives another handle to the same store, as independent of the first as the
    ///   backend can make it: another connection, another pool.
    /// - The store's hour is that of `place.clock`, where there is one; else it is the store's own.
    /// - `setup` was called on what is returned.
    /// - Each case runs on a runtime of its own, so a harness hands no connection of one case to another.
    ///
    /// # Errors
    /// [`CannotRun::Missing`] where this machine lacks what the backend needs, such as a server: the case is
    /// skipped. [`CannotRun::Failed`], which any [`Error`] becomes, where the backend is at fault: the case
    /// fails.
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun>;

    /// What another process of this program needs in its environment so that its harness opens the same stores.
    /// Asked after a place was opened. Defaults to none: a store lives within one process.
    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        None
    }

    /// Where within the backend a process may end, and which steps come by. Defaults to nowhere.
    fn cut_points(&self) -> &'static [CutPoint] {
        &[]
    }
}

/// Where one run of one case takes place.
#[derive(Debug, Clone)]
pub struct Place {
    /// Unique for each run of each case: lower-case letters, digits and underscores, at most 48 of them, so
    /// that it can be a file's name, a schema, or a prefix of keys.
    pub name: String,
    /// The store's hour, which only the case moves; none where the store is to go by its own clock, as it does in
    /// production.
    pub clock: Option<ManualClock>,
    /// Which of the program's harnesses it belongs to, where there are several.
    pub(crate) server: String,
}

impl Place {
    /// A place for one run of `case`, which no other run in any process shares.
    pub(crate) fn of(case: &str, server: &str) -> Self {
        let mut name: String =
            case.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(24).collect();
        name.push_str(&format!("_{:x}_{:x}", std::process::id(), fastrand::u32(..)));
        Self { name, clock: Some(ManualClock::default()), server: server.into() }
    }
}

/// Why a place could not be opened.
#[derive(Debug)]
pub enum CannotRun {
    /// This machine lacks something, in words for the person who reads the report.
    Missing(String),
    /// The backend failed.
    Failed(Error),
}

impl CannotRun {
    /// This machine lacks something.
    pub fn missing(what: impl Into<String>) -> Self {
        Self::Missing(what.into())
    }
}

impl From<Error> for CannotRun {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "cannot run here: {what}"),
            Self::Failed(error) => write!(f, "the backend could not be opened: {error:?}"),
        }
    }
}

impl std::error::Error for CannotRun {}
