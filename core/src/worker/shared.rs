use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

use super::attempt::Attempt;
use super::choice::QueueChoice;
use super::extract::States;
use super::flows::Heard;
use super::held::{Entry, Held};
use super::log::LogSender;
use super::options::HandlerOptions;
use super::own_log::OwnLog;
use super::run::EndedBy;
use crate::backend::{KindRule, Settlement, TagRule, WorkerInfo};
use crate::client::Store;
use crate::id::WorkerId;
use crate::job::JobRecord;
use crate::name::{Kind, QueueName};
use crate::policy::{BoxError, JobFailure, Outcome, RetryPolicy};

/// A handler with everything that stands around it.
pub(super) type Route = BoxCloneSyncService<Attempt, Outcome, BoxError>;

/// What is told of each attempt that failed.
pub(super) type OnFailure = Box<dyn Fn(&JobRecord, &JobFailure) + Send + Sync>;

/// What the services of one worker have in common.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) id: WorkerId,
    pub(super) info: WorkerInfo,
    pub(super) config: Config,
    pub(super) queues: Vec<QueueName>,
    pub(super) kinds: KindRule,
    pub(super) routes: Routes,
    pub(super) states: States,
    pub(super) held: Held,
    pub(super) heard: Heard,
    pub(super) load: Load,
    pub(super) stats: Stats,
    pub(super) settle: mpsc::Sender<(Settlement, Arc<Entry>)>,
    pub(super) log: LogSender,
    pub(super) own_log: OwnLog,
    pub(super) on_failure: Vec<OnFailure>,
    pub(super) ended_by: OnceLock<EndedBy>,
    /// Claim nothing more; run what is held.
    pub(super) enough: CancellationToken,
    /// Claim nothing more; finish what runs, and give back what waits. Has enough, too.
    pub(super) stopping: CancellationToken,
    /// The grace is over: give back what still runs.
    pub(super) interrupt: CancellationToken,
}

/// How a worker behaves.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) concurrency: usize,
    pub(super) prefetch: usize,
    pub(super) tags: TagRule,
    pub(super) min_priority: Option<i16>,
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
    pub(super) poll: Duration,
    pub(super) grace: Duration,
    pub(super) cancel_grace: Duration,
    pub(super) recovery: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) choice: QueueChoice,
    pub(super) until_idle: bool,
    #[cfg(feature = "schedules")]
    pub(super) fires_schedules: bool,
    pub(super) redo_failed: bool,
    pub(super) fail_fast: bool,
    pub(super) max_jobs: Option<usize>,
    pub(super) max_time: Option<Duration>,
    pub(super) max_memory: Option<usize>,
}

/// What runs which jobs.
pub(super) struct Routes {
    pub(super) by_kind: HashMap<Kind, (Route, HandlerOptions)>,
    /// Runs every other kind.
    pub(super) other: Option<(Route, HandlerOptions)>,
}

impl Routes {
    pub(super) fn of(&self, kind: &Kind) -> Option<&(Route, HandlerOptions)> {
        self.by_kind.get(kind).or(self.other.as_ref())
    }
}

impl Shared {
    /// Ends the worker for this reason, unless it ends for another already: it claims nothing more, and runs what it
    /// holds unless somebody told it to stop, or something failed.
    pub(super) fn end_by(&self, reason: EndedBy) {
        if self.ended_by.set(reason).is_ok() {
            tracing::info!(?reason, "the worker ends");
        }
        match reason {
            EndedBy::Stopped | EndedBy::Failure => self.stopping.cancel(),
            EndedBy::Idle | EndedBy::MaxJobs | EndedBy::MaxTime | EndedBy::MaxMemory => self.enough.cancel(),
        }
    }
}

/// How busy the worker is.
#[derive(Default)]
pub(super) struct Load {
    pub(super) running: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    /// All that were claimed so far, but for those that were given back because they waited too long.
    pub(super) taken: AtomicUsize,
    /// Told when a claim is worth its round trip.
    pub(super) room: Notify,
    mean_run_nanos: AtomicU64,
}

impl Load {
    /// Notes how long a run took: a moving average in which each run counts for an eighth.
    pub(super) fn ran(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mean = self.mean_run_nanos.load(Ordering::Relaxed);
        let mean = if mean == 0 { time } else { mean - mean / 8 + time / 8 };
        self.mean_run_nanos.store(mean.max(1), Ordering::Relaxed);
    }

    /// Notes that runs take at least this long, before any of them has ended: nothing is claimed ahead until
    /// shorter ones are seen.
    pub(super) fn runs_at_least(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.mean_run_nanos.fetch_max(time, Ordering::Relaxed);
    }

    pub(super) fn mean_run(&self) -> Option<Duration> {
        let mean = self.mean_run_nanos.load(Ordering::Relaxed);
        (mean > 0).then(|| Duration::from_nanos(mean))
    }
}

/// What the worker has done so far.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) lost: AtomicU64,
}
