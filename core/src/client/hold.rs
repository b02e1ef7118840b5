use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backend::{Level, NewLine};
use crate::job::{JobRecord, Progress};

/// How many lines may wait to be written; of more, the oldest go.
const WAITING: usize = 1_000;

/// A job that a [scope](super::HeldJob::run) runs: what is known of it, and what can be said of it meanwhile. Clones are
/// the same job.
#[derive(Clone)]
pub struct Hold(Arc<Inner>);

struct Inner {
    job: JobRecord,
    said: Mutex<Said>,
    more: Notify,
}

#[derive(Default)]
struct Said {
    progress: Option<Progress>,
    lines: VecDeque<NewLine>,
    /// The position of the first line that waits among all that were written under this lease.
    position: u64,
}

impl Hold {
    /// Of a job under whose lease so many lines were written.
    pub(super) fn new(job: JobRecord, position: u64) -> Self {
        let said = Said { position, ..Said::default() };
        Self(Arc::new(Inner { job, said: Mutex::new(said), more: Notify::new() }))
    }

    /// The job.
    pub fn job(&self) -> &JobRecord {
        &self.0.job
    }

    /// Tells how far the job has come. Returns at once; it is written a moment from now, with a renewal of the lease, and
    /// only the latest counts.
    pub fn progress(&self, progress: Progress) {
        self.said().progress = Some(progress);
        self.0.more.notify_one();
    }

    /// Adds a line to the job's capped log. Returns at once; lines are written in batches, and of more than the store
    /// takes the oldest go (clause L4).
    pub fn log(&self, level: Level, message: impl Into<String>) {
        let mut said = self.said();
        said.lines.push_back(NewLine { level, message: message.into() });
        if said.lines.len() > WAITING {
            said.lines.pop_front();
            said.position += 1;
        }
        drop(said);
        self.0.more.notify_one();
    }

    /// Waits until there is something to write.
    pub(super) async fn more(&self) {
        self.0.more.notified().await;
    }

    /// The progress to be written. It counts as such until it [is](Self::written).
    pub(super) fn latest(&self) -> Option<Progress> {
        self.said().progress.clone()
    }

    pub(super) fn written(&self, progress: &Progress) {
        let mut said = self.said();
        if said.progress.as_ref() == Some(progress) {
            said.progress = None;
        }
    }

    /// The lines to be written, and the position of the first.
    pub(super) fn lines(&self) -> (u64, Vec<NewLine>) {
        let said = self.said();
        (said.position, said.lines.iter().cloned().collect())
    }

    /// Forgets the lines before that position.
    pub(super) fn taken_until(&self, position: u64) {
        let mut said = self.said();
        let taken = usize::try_from(position.saturating_sub(said.position)).unwrap_or(usize::MAX);
        let taken = taken.min(said.lines.len());
        said.lines.drain(..taken);
        said.position += taken as u64;
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Hold {
    type Target = JobRecord;
    fn deref(&self) -> &JobRecord {
        self.job()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0.job.id).finish()
    }
}
