use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::bound::bound;
use super::builder::WorkerBuilder;
use super::execute::execute;
use super::fetch::fetch;
use super::flows::flows;
use super::heartbeat::heartbeat;
use super::held::{Cause, Entry};
use super::log::log;
use super::maintain::maintain;
use super::panics;
use super::settle::settle;
use super::shared::{Config, Shared, Stats};
use crate::backend::Settlement;
use crate::client::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkerId;

/// How long the last settlements may take once all handlers have ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Runs handlers for jobs. Built by [`Worker::builder`], then [run](Self::run) or [started](Self::start).
pub struct Worker {
    shared: Arc<Shared>,
    ended: mpsc::Receiver<(Settlement, Arc<Entry>)>,
}

impl Worker {
    /// Begins a worker on `store`.
    pub fn builder(store: &Store) -> WorkerBuilder {
        WorkerBuilder::new(store.clone())
    }

    pub(super) fn new(shared: Arc<Shared>, ended: mpsc::Receiver<(Settlement, Arc<Entry>)>) -> Self {
        Self { shared, ended }
    }

    /// Its id, unique to this start.
    pub fn id(&self) -> WorkerId {
        self.shared.id
    }

    /// What stops it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper { stopping: self.shared.stopping.clone(), interrupt: self.shared.interrupt.clone() }
    }

    /// Starts it in the background.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self) -> RunningWorker {
        let (stopper, id) = (self.stopper(), self.id());
        RunningWorker { id, stopper, task: tokio::spawn(self.run()) }
    }

    /// Runs until it is stopped, or idle if it was built [so](WorkerBuilder::until_idle). No store's error
    /// ends it. Dropping the future abandons its jobs, which are recovered when their leases run out.
    ///
    /// # Panics
    /// If the store or the worker itself panics. A handler's panic is a failure of its job.
    pub async fn run(self) -> Summary {
        let own_log = self.shared.own_log.clone();
        own_log.scope(self.work()).await
    }

    async fn work(self) -> Summary {
        let Self { shared, ended } = self;
        panics::install();
        tracing::info!(worker = %shared.id, name = %shared.info.name, "the worker begins");
        let done = CancellationToken::new();
        let (ready, claimed) = mpsc::unbounded_channel();
        // Aborts its tasks when it is dropped, so that none is left behind.
        let mut services = JoinSet::new();
        let own = &shared.own_log;
        own.spawn(&mut services, heartbeat(shared.clone(), done.clone()));
        own.spawn(&mut services, maintain(shared.clone(), done.clone()));
        own.spawn(&mut services, flows(shared.clone(), done.clone()));
        own.spawn(&mut services, bound(shared.clone(), done.clone()));
        #[cfg(feature = "schedules")]
        if shared.config.fires_schedules {
            let (schedules, done) = (shared.store.schedules(), done.clone());
            own.spawn(&mut services, async move {
                done.run_until_cancelled(schedules.fire()).await.unwrap_or_default();
            });
        }
        own.spawn(&mut services, log(shared.store.clone(), shared.log.clone(), done.clone()));
        let mut work = JoinSet::new();
        own.spawn(&mut work, fetch(shared.clone(), ready));
        own.spawn(&mut work, execute(shared.clone(), claimed));
        let mut settling = JoinSet::new();
        own.spawn(&mut settling, settle(shared.clone(), ended));

        tokio::select! {
            () = shared.interrupted() => {
                tracing::error!(
                    jobs = shared.held.len(),
                    "handlers that cannot be stopped are left behind; the leases of their jobs will run out"
                );
            }
            () = all(&mut work) => {}
            () = all(&mut settling) => {}
            () = all(&mut services) => {}
        }
        let last_words = async {
            tokio::select! {
                () = shared.settled() => {}
                () = all(&mut settling) => {}
            }
        };
        if tokio::time::timeout(LAST_WORDS, last_words).await.is_err() {
            tracing::error!(
                jobs = shared.held.len(),
                "ended jobs could not be settled; their leases will run out"
            );
        }
        done.cancel();
        drop(settling);
        let _ = tokio::time::timeout(LAST_WORDS, all(&mut services)).await;
        Summary { ended_by: shared.ended_by.get().copied().unwrap_or_default(), ..Summary::of(&shared.stats) }
    }
}

impl Shared {
    /// Waits until the worker is to stop, tells the handlers, and returns when even those that cannot be stopped
    /// have had their time.
    async fn interrupted(&self) {
        self.stopping.cancelled().await;
        tracing::info!(jobs = self.held.len(), "the worker stops");
        let Config { grace, cancel_grace, .. } = self.config;
        // Told a while before the grace is over, so that they can end by themselves.
        let told_for = cancel_grace.min(grace);
        let _ = tokio::time::timeout(grace - told_for, self.interrupt.cancelled()).await;
        let tell = async {
            loop {
                self.held.all().iter().for_each(|entry| entry.cancel(Cause::Stopping));
                // A job that was being claimed may come to be held a moment later.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let end = async {
            let _ = tokio::time::timeout(told_for, self.interrupt.cancelled()).await;
            self.interrupt.cancel();
            // A claim may be under way; what is dropped is gone at once, unless it blocks its thread.
            let claim = self.store.deadline().left().min(LAST_WORDS);
            tokio::time::sleep(claim + Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = tell => {}
            () = end => {}
        }
    }

    /// Waits until the store has answered to every settlement.
    async fn settled(&self) {
        while self.held.all().iter().any(|entry| entry.is_settling()) {
            let gone = self.held.gone.notified();
            let _ = tokio::time::timeout(Duration::from_millis(50), gone).await;
        }
    }
}

/// Waits until all of these services have ended.
async fn all(services: &mut JoinSet<()>) {
    while let Some(ended) = services.join_next().await {
        panics::pass_on(ended);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.shared.id)
            .field("queues", &self.shared.queues)
            .finish_non_exhaustive()
    }
}

/// A worker at work. Dropping it stops it at once; its jobs are recovered when their leases run out.
#[derive(Debug)]
pub struct RunningWorker {
    id: WorkerId,
    stopper: Stopper,
    task: JoinHandle<Summary>,
}

impl RunningWorker {
    /// Its id, unique to this start.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// What stops it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Stops it and waits for its end: it claims nothing more, finishes what runs within its grace, and gives
    /// the rest back with its attempt. A handler that blocks its thread is left behind a few seconds later.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) if the store or the worker itself panicked.
    pub async fn stop(self) -> Result<Summary> {
        self.stopper.stop();
        self.join().await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) if the store or the worker itself panicked.
    pub async fn join(mut self) -> Result<Summary> {
        (&mut self.task).await.map_err(|error| {
            Error::new(ErrorKind::Internal, "the worker ended abnormally; please report this")
                .caused_by(error)
        })
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Stops a worker from elsewhere, such as a signal handler. Clones stop the same worker.
#[derive(Debug, Clone)]
pub struct Stopper {
    stopping: CancellationToken,
    interrupt: CancellationToken,
}

impl Stopper {
    /// Claims nothing more, finishes what runs within the grace, then gives the rest back.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Gives everything back now.
    pub fn interrupt(&self) {
        self.stopping.cancel();
        self.interrupt.cancel();
    }
}

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EndedBy {
    /// Somebody told it to stop, here or from afar.
    #[default]
    Stopped,
    /// It was to run [until it is idle](WorkerBuilder::until_idle), and is.
    Idle,
    /// It has taken as many jobs as it [may](WorkerBuilder::max_jobs).
    MaxJobs,
    /// It has worked for as long as it [may](WorkerBuilder::max_time).
    MaxTime,
    /// Its process takes more memory than it [may](WorkerBuilder::max_memory).
    MaxMemory,
    /// An attempt failed, and it was to [stop then](WorkerBuilder::fail_fast).
    Failure,
}

/// What a worker did, by how its attempts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Ended well.
    pub succeeded: u64,
    /// Ended the job badly.
    pub failed: u64,
    /// Ended as cancelled.
    pub cancelled: u64,
    /// To be tried again.
    pub retried: u64,
    /// Given back.
    pub released: u64,
    /// Not recorded, for the lease was lost.
    pub lost: u64,
    /// Why the worker ended.
    pub ended_by: EndedBy,
}

impl Summary {
    fn of(stats: &Stats) -> Self {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Self {
            succeeded: read(&stats.succeeded),
            failed: read(&stats.failed),
            cancelled: read(&stats.cancelled),
            retried: read(&stats.retried),
            released: read(&stats.released),
            lost: read(&stats.lost),
            ended_by: EndedBy::default(),
        }
    }
}
