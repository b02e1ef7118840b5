use std::fmt;
use std::sync::Arc;

use super::extract::States;
use super::held::Entry;
use super::shared::{Routes, Shared};
use crate::backend::{Level, NewLine};
use crate::client::Store;
use crate::id::JobId;
use crate::job::{JobRecord, LeasedJob, Progress};

/// One run of a job, as its handler sees it. Clones are the same attempt.
#[derive(Clone)]
pub struct Attempt(Arc<Inner>);

struct Inner {
    leased: LeasedJob,
    entry: Arc<Entry>,
    shared: Arc<Shared>,
}

impl Attempt {
    pub(super) fn new(leased: LeasedJob, entry: Arc<Entry>, shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner { leased, entry, shared }))
    }

    /// The same attempt, shown another job.
    pub(super) fn part(&self, leased: LeasedJob) -> Self {
        Self::new(leased, self.0.entry.clone(), self.0.shared.clone())
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

    /// Tells how far the job has come. Returns at once; it is written with the next renewal of the lease, a
    /// moment from now, and only the latest one counts.
    pub fn progress(&self, progress: Progress) {
        self.0.entry.report(progress);
    }

    /// Adds a line to the job's capped log. Returns at once; lines are written in batches, and dropped
    /// rather than waited for when more come than the store takes (clause L4).
    pub fn log(&self, level: Level, message: impl Into<String>) {
        let line = NewLine { level, message: message.into() };
        self.0.shared.log.send(&self.0.entry, line);
    }

    /// Whether the handler should end: its lease is lost, somebody cancelled the job, or the worker stops.
    pub fn is_cancelled(&self) -> bool {
        self.0.entry.cancelled().is_cancelled()
    }

    /// Waits until the handler should end. If it does not end itself it is dropped: at once if its lease is
    /// lost, [a grace period](super::WorkerBuilder::cancel_grace) later if somebody cancelled the job or the
    /// worker stops.
    pub async fn cancelled(&self) {
        self.0.entry.cancelled().cancelled().await;
    }

    pub(super) fn states(&self) -> &States {
        &self.0.shared.states
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.0.shared.routes
    }

    pub(super) fn entry(&self) -> &Entry {
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
