//! What a worker says of its own work, outside of jobs.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[cfg(feature = "job-logs")]
use crate::backend::Level;
use crate::backend::WorkerLine;
#[cfg(feature = "job-logs")]
use crate::limits;

tokio::task_local! {
    static CURRENT: OwnLog;
}

/// The latest lines of a worker, which go to the store with its check-ins: they need no call of their own, and no more
/// lines can wait than are kept.
#[derive(Clone, Default)]
pub(super) struct OwnLog(Arc<Said>);

#[derive(Default)]
struct Said {
    lines: Mutex<Lines>,
    more: Notify,
}

#[derive(Default)]
struct Lines {
    #[cfg(feature = "job-logs")]
    last: u64,
    kept: VecDeque<(Instant, WorkerLine)>,
}

impl OwnLog {
    /// Does `work` as the worker's own: what it says is in this log.
    pub(super) async fn scope<F: Future>(&self, work: F) -> F::Output {
        CURRENT.scope(self.clone(), work).await
    }

    /// Spawns `work` as the worker's own.
    pub(super) fn spawn(&self, among: &mut JoinSet<()>, work: impl Future<Output = ()> + Send + 'static) {
        among.spawn(CURRENT.scope(self.clone(), work));
    }

    /// The log of the worker that this code is the work of.
    #[cfg(feature = "job-logs")]
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    #[cfg(feature = "job-logs")]
    pub(super) fn say(&self, level: Level, mut message: String) {
        limits::cut(&mut message, limits::WORKER_LINE_BYTES);
        let mut lines = self.lines();
        lines.last += 1;
        let line = WorkerLine { sequence: lines.last, age: Default::default(), level, message };
        lines.kept.push_back((Instant::now(), line));
        if lines.kept.len() > limits::WORKER_LINES {
            lines.kept.pop_front();
        }
        drop(lines);
        self.0.more.notify_one();
    }

    /// The lines as a check-in tells them.
    pub(super) fn told(&self) -> Vec<WorkerLine> {
        let told = |(said, line): &(Instant, WorkerLine)| WorkerLine { age: said.elapsed(), ..line.clone() };
        self.lines().kept.iter().map(told).collect()
    }

    /// Waits until there is more to tell.
    pub(super) async fn more(&self) {
        self.0.more.notified().await;
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
