use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use super::held::Entry;
use crate::backend::{AppendLogs, Level, LogAppend, NewLine};
use crate::client::Store;

/// How many lines may wait to be written; what comes beyond is dropped.
const WAITING: usize = 10_000;
/// How many lines go to the store in one call.
const BATCH: usize = 1_000;
/// How long lines are gathered, so that a reader who follows still sees them live.
const GATHER: Duration = Duration::from_millis(50);

/// Takes lines for the capped logs without ever making a handler wait: when more come than the store takes, the oldest
/// of those that wait go, and the log says how many.
#[derive(Clone, Default)]
pub(super) struct LogSender(Arc<Lines>);

#[derive(Default)]
struct Lines {
    waiting: Mutex<Waiting>,
    came: Notify,
    hurry: Notify,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<(Arc<Entry>, NewLine)>,
    closed: bool,
}

impl LogSender {
    pub(super) fn send(&self, entry: &Arc<Entry>, line: NewLine) {
        let mut waiting = self.waiting();
        if waiting.closed {
            return dropped();
        }
        entry.unwritten.add(1);
        waiting.lines.push_back((entry.clone(), line));
        let oldest = if waiting.lines.len() > WAITING { waiting.lines.pop_front() } else { None };
        drop(waiting);
        self.0.came.notify_one();
        if let Some((entry, _)) = oldest {
            entry.dropped_lines.fetch_add(1, Ordering::Relaxed);
            entry.unwritten.written(1);
            dropped();
        }
    }

    /// Waits until the store has answered to all lines of an entry.
    pub(super) async fn flush(&self, entry: &Arc<Entry>) {
        loop {
            let written = entry.unwritten.told();
            if entry.unwritten.is_empty() {
                // Nothing is left that could bring it with it.
                let Some(missing) = missing(entry) else { return };
                self.send(entry, missing);
            }
            self.0.hurry.notify_one();
            written.await;
        }
    }

    /// Some lines, once there are any; none once `done` and all are taken.
    async fn next(&self, most: usize, done: &CancellationToken) -> Vec<(Arc<Entry>, NewLine)> {
        loop {
            let came = self.0.came.notified();
            // An attempt that a handler gave away may live on, and say more.
            let over = done.is_cancelled();
            let lines = self.take(most, over);
            if over || !lines.is_empty() {
                return lines;
            }
            tokio::select! {
                () = came => {}
                () = done.cancelled() => {}
            }
        }
    }

    fn take(&self, most: usize, close: bool) -> Vec<(Arc<Entry>, NewLine)> {
        let mut waiting = self.waiting();
        waiting.closed |= close;
        let count = waiting.lines.len().min(most);
        waiting.lines.drain(..count).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dropped() {
    metrics::counter!("leasehold_log_lines_dropped_total").increment(1);
}

/// A line that says how many were dropped since the last one.
fn missing(entry: &Entry) -> Option<NewLine> {
    let lines = entry.dropped_lines.swap(0, Ordering::Relaxed);
    let message = || format!("{lines} lines are missing here: more came than the store takes");
    (lines > 0).then(|| NewLine { level: Level::Warn, message: message() })
}

/// How many lines of an entry are on the way to the store.
#[derive(Default)]
pub(super) struct Unwritten {
    lines: AtomicUsize,
    none: Notify,
}

impl Unwritten {
    fn add(&self, lines: usize) {
        self.lines.fetch_add(lines, Ordering::AcqRel);
    }

    fn written(&self, lines: usize) {
        if self.lines.fetch_sub(lines, Ordering::AcqRel) == lines {
            self.none.notify_waiters();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.load(Ordering::Acquire) == 0
    }

    fn told(&self) -> Notified<'_> {
        self.none.notified()
    }
}

impl Entry {
    /// Whether there is anything to flush.
    pub(super) fn has_lines(&self) -> bool {
        !self.unwritten.is_empty() || self.dropped_lines.load(Ordering::Relaxed) > 0
    }
}

/// Carries lines to the store until `done`, and then those that wait. A failure is noted, and never becomes the
/// job's (clause L4).
pub(super) async fn log(store: Store, lines: LogSender, done: CancellationToken) {
    // Each may bring one with it that says how many are missing.
    let most = BATCH.min(store.limits().batch / 2).max(1);
    loop {
        let batch = lines.next(most, &done).await;
        if batch.is_empty() {
            return;
        }
        let (appends, entries) = by_lease(batch);
        if let Err(error) = store.backend().append_logs(store.deadline(), AppendLogs { appends }).await {
            tracing::warn!(%error, "log lines could not be written");
        }
        entries.iter().for_each(|(entry, lines)| entry.unwritten.written(*lines));
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = lines.0.hurry.notified() => {}
            () = done.cancelled() => {}
        }
    }
}

/// The lines of each lease, and how many they are.
fn by_lease(lines: Vec<(Arc<Entry>, NewLine)>) -> (Vec<LogAppend>, Vec<(Arc<Entry>, usize)>) {
    let mut order = Vec::new();
    let mut by_token: HashMap<_, (Arc<Entry>, Vec<NewLine>)> = HashMap::new();
    for (entry, line) in lines {
        let token = entry.token;
        let (_, lines) = by_token.entry(token).or_insert_with(|| {
            order.push(token);
            (entry, Vec::new())
        });
        lines.push(line);
    }
    let append = |(entry, mut lines): (Arc<Entry>, Vec<NewLine>)| {
        let count = lines.len();
        lines.splice(0..0, missing(&entry));
        let position = entry.number_lines(lines.len() as u64);
        (LogAppend { job: entry.job, token: entry.token, position, lines }, (entry, count))
    };
    order.into_iter().filter_map(|token| by_token.remove(&token)).map(append).unzip()
}
