use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::id::{JobId, LeaseToken};
use crate::job::{LeasedJob, Progress};
use crate::policy::LeaseTimes;

/// Why a handler is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The store says so, or the lease could not be renewed in time: nothing may be written any more.
    LeaseLost,
    /// Somebody asked to cancel the job.
    CancelRequested,
    /// The worker stops and its grace is over.
    Stopping,
}

/// One lease that this worker holds, from its claim to the answer of its settlement.
pub(super) struct Entry {
    pub(super) job: JobId,
    pub(super) token: LeaseToken,
    pub(super) lease: Duration,
    /// How many log lines were written under this lease.
    pub(super) lines: AtomicU64,
    cancelled: CancellationToken,
    live: Mutex<Live>,
    changed: Arc<Notify>,
}

struct Live {
    /// When the claim or the latest successful renewal was asked for.
    asked_at: Instant,
    progress: Option<Progress>,
    cause: Option<Cause>,
    settling: bool,
}

impl Entry {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Why the handler was told to end, if it was; a lost lease outweighs the rest.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.live().cause
    }

    /// Tells the handler to end.
    pub(super) fn cancel(&self, cause: Cause) {
        let mut live = self.live();
        if live.cause.is_none() || cause == Cause::LeaseLost {
            live.cause = Some(cause);
        }
        drop(live);
        self.cancelled.cancel();
    }

    /// Notes that its settlement is on the way: a renewal that comes back lost then means nothing.
    pub(super) fn settle(&self) {
        self.live().settling = true;
    }

    pub(super) fn is_settling(&self) -> bool {
        self.live().settling
    }

    pub(super) fn report(&self, progress: Progress) {
        self.live().progress = Some(progress);
        self.changed.notify_one();
    }

    pub(super) fn take_progress(&self) -> Option<Progress> {
        self.live().progress.take()
    }

    pub(super) fn has_progress(&self) -> bool {
        self.live().progress.is_some()
    }

    /// Keeps progress that could not be written, unless there is newer.
    pub(super) fn keep_progress(&self, progress: Option<Progress>) {
        let mut live = self.live();
        live.progress = live.progress.take().or(progress);
    }

    /// Notes that the lease was renewed by a call that began at `asked_at`.
    pub(super) fn renewed(&self, asked_at: Instant) {
        self.live().asked_at = asked_at;
    }

    pub(super) fn renew_at(&self) -> Instant {
        self.live().asked_at + LeaseTimes::of(self.lease).renew
    }

    pub(super) fn fence_at(&self) -> Instant {
        self.live().asked_at + LeaseTimes::of(self.lease).fence
    }
}

/// All leases that this worker holds.
#[derive(Default)]
pub(super) struct Held {
    entries: Mutex<HashMap<LeaseToken, Arc<Entry>>>,
    /// Told when an entry comes or has progress to write: the heartbeat plans anew.
    pub(super) changed: Arc<Notify>,
    /// Told when an entry goes.
    pub(super) gone: Notify,
}

impl Held {
    fn entries(&self) -> MutexGuard<'_, HashMap<LeaseToken, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a job that a claim which began at `asked_at` got.
    pub(super) fn add(&self, leased: &LeasedJob, asked_at: Instant) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            job: leased.job.id,
            token: leased.token,
            lease: leased.lease,
            lines: AtomicU64::new(0),
            cancelled: CancellationToken::new(),
            live: Mutex::new(Live { asked_at, progress: None, cause: None, settling: false }),
            changed: self.changed.clone(),
        });
        self.entries().insert(entry.token, entry.clone());
        self.changed.notify_one();
        entry
    }

    pub(super) fn remove(&self, token: LeaseToken) {
        self.entries().remove(&token);
        self.gone.notify_waiters();
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }
}

impl Entry {
    /// Numbers `count` log lines; returns the first number.
    pub(super) fn number_lines(&self, count: u64) -> u64 {
        self.lines.fetch_add(count, Ordering::Relaxed)
    }
}
