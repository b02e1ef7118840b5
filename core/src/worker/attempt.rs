use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
#[cfg(all(unix, feature = "process"))]
use tokio::time::Instant;

use super::extract::States;
use super::held::Entry;
use super::shared::{Routes, Shared};
use crate::backend::{Level, NewLine};
use crate::client::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Member;
use crate::id::{JobId, WorkerId};
use crate::job::{JobRecord, LeasedJob, Progress};
use crate::name::Kind;
use crate::policy::{JobFailure, Outcome, RetryPolicy};

/// One run of a job, as its handler sees it. Clones are the same attempt.
#[derive(Clone)]
pub struct Attempt(Arc<Inner>);

struct Inner {
    leased: LeasedJob,
    entry: Arc<Entry>,
    shared: Arc<Shared>,
    /// Of one payload of many: how it ends, which is no more than that.
    alone: Option<Arc<Alone>>,
}

/// How a part of an attempt ends that does not end the whole.
#[derive(Default)]
struct Alone {
    decision: Mutex<Option<Outcome>>,
    decided: Notify,
}

impl Attempt {
    pub(super) fn new(leased: LeasedJob, entry: Arc<Entry>, shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner { leased, entry, shared, alone: None }))
    }

    /// The same attempt, shown another job.
    pub(super) fn part(&self, leased: LeasedJob) -> Self {
        let Inner { entry, shared, alone, .. } = &*self.0;
        let (entry, shared, alone) = (entry.clone(), shared.clone(), alone.clone());
        Self(Arc::new(Inner { leased, entry, shared, alone }))
    }

    /// A part of it that ends for itself alone, and has neither progress nor cursor.
    pub(super) fn apart(&self, leased: LeasedJob) -> Self {
        let Inner { entry, shared, .. } = &*self.0;
        let (entry, shared, alone) = (entry.clone(), shared.clone(), Some(Arc::default()));
        Self(Arc::new(Inner { leased, entry, shared, alone }))
    }

    /// Decides how the attempt ends, or this part of it, unless that is decided.
    pub(super) fn decide(&self, how: Outcome) {
        let Some(alone) = &self.0.alone else { return self.0.entry.decide(how) };
        alone.decision.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(how);
        alone.decided.notify_one();
    }

    /// Waits until it is decided how this part ends.
    pub(super) async fn decided(&self) {
        match &self.0.alone {
            Some(alone) => alone.decided.notified().await,
            None => std::future::pending().await,
        }
    }

    /// How it was decided that this part ends, if it was.
    pub(super) fn decision(&self) -> Option<Outcome> {
        self.0.alone.as_ref()?.decision.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The job.
    pub fn job(&self) -> &JobRecord {
        &self.0.leased.job
    }

    /// The job's id. With [`number`](Self::number) it is an idempotency key for what the handler does.
    pub fn id(&self) -> JobId {
        self.0.leased.job.id
    }

    /// Which attempt this is, from 1.
    pub fn number(&self) -> u32 {
        self.0.leased.job.attempt
    }

    /// Whether a failure of this attempt would be the last.
    pub fn is_last(&self) -> bool {
        self.number() >= self.0.leased.job.options.max_attempts
    }

    /// The store the job is in, to enqueue more or to look around.
    pub fn store(&self) -> &Store {
        &self.0.shared.store
    }

    /// Its place in a flow; none if it is of no flow.
    pub fn flow(&self) -> Option<Member> {
        Member::of(self.job())
    }

    /// The jobs of its flow that it waited for, by number, as they are now: with their results, or how they failed. Those of no
    /// flow waited for none. An error ends the stream.
    pub fn parents(&self) -> impl Stream<Item = Result<JobRecord>> + Send + use<> {
        let parents = self.flow().map(|member| self.store().flows().parents(member));
        futures::stream::iter(parents).flatten()
    }

    /// Tells how far the job has come. Returns at once; it is written with the next renewal of the lease, a
    /// moment from now, and only the latest one counts. Of a payload that a record of a raw queue carries with others it
    /// is not kept.
    pub fn progress(&self, progress: Progress) {
        if self.0.alone.is_none() {
            self.0.entry.report(progress);
        }
    }

    /// Where an earlier attempt, or this one, [said](Self::save_cursor) that the work goes on; none if neither did.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if what was said is no `T`.
    pub fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let cursor = self.0.alone.is_none().then(|| self.0.entry.cursor()).flatten();
        let Some(cursor) = cursor else { return Ok(None) };
        let why =
            |e| Error::invalid(format!("the cursor is not a {}", std::any::type_name::<T>())).caused_by(e);
        serde_json::from_str(&cursor).map(Some).map_err(why)
    }

    /// Saves where a later attempt is to go on, should this one be interrupted, lost or fail; returns when it is written,
    /// under this attempt's lease.
    ///
    /// ```
    /// use leasehold_core::Attempt;
    ///
    /// async fn import(attempt: Attempt) -> leasehold_core::Result<()> {
    ///     let begin = attempt.cursor::<u64>()?.unwrap_or(0);
    ///     for page in begin..100 {
    ///         // ... what may be done twice if the worker dies right here ...
    ///         attempt.save_cursor(&(page + 1)).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it cannot be written as JSON, or is larger than
    /// [`Limits::cursor_bytes`](crate::Limits::cursor_bytes); [`Conflict`](crate::ErrorKind::Conflict) if the lease is lost.
    pub async fn save_cursor<T: Serialize + ?Sized>(&self, cursor: &T) -> Result<()> {
        if self.0.alone.is_some() {
            return Err(Error::invalid(
                "a payload that a record carries with others has no cursor of its own",
            ));
        }
        let why = |e| Error::invalid("this cursor cannot be written as JSON").caused_by(e);
        let cursor = serde_json::to_string(cursor).map_err(why)?;
        let most = self.store().limits().cursor_bytes;
        if cursor.len() > most {
            let size = cursor.len();
            return Err(Error::invalid(format!("the cursor has {size} bytes; it may have {most} at most")));
        }
        if self.0.entry.save_cursor(cursor).await {
            return Ok(());
        }
        let why = format!("the cursor of job {} was not saved, for its lease is lost", self.id());
        Err(Error::new(ErrorKind::Conflict, why))
    }

    /// Adds a line to the job's capped log. Returns at once; lines are written in batches, and dropped
    /// rather than waited for when more come than the store takes (clause L4).
    pub fn log(&self, level: Level, message: impl Into<String>) {
        let line = NewLine { level, message: message.into() };
        self.0.shared.log.send(&self.0.entry, line);
    }

    /// Whether the handler should end: its lease is lost, somebody cancelled the job, or the worker stops.
    pub fn is_cancelled(&self) -> bool {
        self.0.entry.cause().is_some()
    }

    /// Waits until the handler should end. If it does not end itself it is dropped: at once if its lease is
    /// lost, [a grace period](super::WorkerBuilder::cancel_grace) later if somebody cancelled the job or the
    /// worker stops.
    pub async fn cancelled(&self) {
        self.0.entry.cancelled().await;
    }

    /// Who runs it.
    pub fn worker(&self) -> WorkerId {
        self.0.shared.id
    }

    /// Until when what cannot be dropped may go on: after the worker would have ended it itself, and before the lease ends.
    #[cfg(all(unix, feature = "process"))]
    pub(super) fn lives_until(&self) -> Instant {
        self.0.entry.lives_until()
    }

    /// Whether that moment is over. Then its lease is lost, also if nobody has noticed yet.
    #[cfg(all(unix, feature = "process"))]
    pub(super) fn has_outlived_its_lease(&self) -> bool {
        let is_over = self.lives_until() <= Instant::now();
        if is_over {
            self.0.entry.fence();
        }
        is_over
    }

    /// Waits until that is later, by a renewal, and tells when it is.
    #[cfg(all(unix, feature = "process"))]
    pub(super) async fn lives_beyond(&self, end: Instant) -> Instant {
        self.0.entry.lives_beyond(end).await
    }

    pub(super) fn states(&self) -> &States {
        &self.0.shared.states
    }

    /// Tells of a part of it that failed whoever wants to know.
    pub(super) fn failed(&self, job: &JobRecord, failure: &JobFailure) {
        self.0.shared.failed(job, failure);
    }

    /// When failed attempts of a kind are tried again, where the job does not say.
    pub(super) fn policy(&self, kind: &Kind) -> &RetryPolicy {
        self.0.shared.policy(kind)
    }

    /// How long an attempt may run where neither job nor handler says.
    pub(super) fn timeout(&self) -> Duration {
        self.0.shared.config.timeout
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.0.shared.routes
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.0.entry
    }

    pub(super) fn leased(&self) -> &LeasedJob {
        &self.0.leased
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt({} of {}, {})", self.number(), self.id(), self.job().kind)
    }
}
