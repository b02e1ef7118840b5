use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::{Backend, Error, JobId, ManualClock, NewJob};

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

    /// Makes the record of a waiting job unreadable, as damage or a newer program may leave it (clause B3).
    /// Defaults to saying that it cannot.
    ///
    /// # Errors
    /// [`CannotRun`], and so do the methods below.
    async fn damage(&self, _: &Place, _: JobId) -> Result<(), CannotRun> {
        Err(CannotRun::unable("its harness has no way to damage a record"))
    }

    /// Opens the store of this place so that it can be taken away (clause B6). Defaults to saying that it cannot.
    async fn open_far(&self, _: &Place) -> Result<Far, CannotRun> {
        Err(CannotRun::unable("its harness has no way to take the store away"))
    }

    /// Opens stores by URLs that cannot be used and have this password in them, and answers all that is shown:
    /// each error and each `Debug` (clause B5). Defaults to saying that its URLs have no password.
    async fn shown_of_password(&self, _: &str) -> Result<Vec<String>, CannotRun> {
        Err(CannotRun::unable("its harness knows no URL with a password"))
    }

    /// Enqueues jobs in a transaction of the caller's, and commits it or not (clause P5). Defaults to saying that
    /// it cannot.
    async fn enqueue_in_transaction(
        &self,
        _: &Place,
        _: Vec<NewJob>,
        _commit: bool,
    ) -> Result<(), CannotRun> {
        Err(CannotRun::unable("its harness has no transaction of a caller's"))
    }

    /// What another process of this program needs in its environment so that its harness opens the same stores.
    /// Asked after a place was opened. Defaults to none: a store lives within one process.
    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        None
    }

    /// Lets go of what it holds itself of a place whose handles are all closed, as the end of this process would: what
    /// is left is what outlives it (clause P1). Asked only of a harness that has no [`elsewhere`](Self::elsewhere), and
    /// whose backend says that it is durable. Defaults to saying that it cannot, and then the backend is not believed.
    async fn forget(&self, _: &Place) -> Result<(), CannotRun> {
        Err(CannotRun::unable("its harness has neither `elsewhere` nor `forget`"))
    }

    /// Where within the backend a process may end, and which steps come by. Defaults to nowhere.
    fn cut_points(&self) -> &'static [CutPoint] {
        &[]
    }
}

/// A client of a store that can be taken away from it.
#[derive(Debug)]
pub struct Far {
    /// The client.
    pub backend: Arc<dyn Backend>,
    /// What stands between it and the store.
    pub reach: Box<dyn Reach>,
}

/// Takes a store away from one client, and gives it back.
#[async_trait]
pub trait Reach: fmt::Debug + Send + Sync {
    /// From here on no call that writes reaches the store, or none is answered.
    ///
    /// # Errors
    /// [`CannotRun`].
    async fn cut(&mut self) -> Result<(), CannotRun>;

    /// From here on calls reach the store again.
    ///
    /// # Errors
    /// [`CannotRun`].
    async fn mend(&mut self) -> Result<(), CannotRun>;
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
    /// The place of this name, where the store goes by its own clock.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), clock: None, server: String::new() }
    }

    /// A store's configuration on the clock of this place, if it has one: `place.on_clock(config, Config::clock)`.
    #[must_use]
    pub fn on_clock<C>(&self, config: C, set: impl FnOnce(C, ManualClock) -> C) -> C {
        match &self.clock {
            Some(clock) => set(config, clock.clone()),
            None => config,
        }
    }

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
    /// This harness has no way to do what a case needs, and here is why.
    Unable(String),
    /// The backend failed.
    Failed(Error),
}

impl CannotRun {
    /// This machine lacks something.
    pub fn missing(what: impl Into<String>) -> Self {
        Self::Missing(what.into())
    }

    /// This harness has no way to do it.
    pub fn unable(why: impl Into<String>) -> Self {
        Self::Unable(why.into())
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
            Self::Unable(why) => write!(f, "not supported: {why}"),
            Self::Failed(error) => write!(f, "the backend could not be opened: {error:?}"),
        }
    }
}

impl std::error::Error for CannotRun {}
