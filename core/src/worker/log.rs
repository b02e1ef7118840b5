use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::held::Entry;
use crate::backend::{AppendLogs, LogAppend, NewLine};
use crate::client::Store;

/// How many lines may wait to be written; what comes beyond is dropped.
const WAITING: usize = 10_000;
/// How many lines go to the store in one call.
const BATCH: usize = 1_000;
/// How long lines are gathered, so that a reader who follows still sees them live.
const GATHER: Duration = Duration::from_millis(50);

/// Takes lines for the capped logs without ever making a handler wait.
#[derive(Clone)]
pub(super) struct LogSender {
    lines: mpsc::Sender<(Arc<Entry>, NewLine)>,
    hurry: Arc<Notify>,
}

pub(super) struct LogReceiver {
    lines: mpsc::Receiver<(Arc<Entry>, NewLine)>,
    hurry: Arc<Notify>,
}

pub(super) fn channel() -> (LogSender, LogReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let hurry = Arc::new(Notify::new());
    (LogSender { lines: sender, hurry: hurry.clone() }, LogReceiver { lines: receiver, hurry })
}

impl LogSender {
    pub(super) fn send(&self, entry: &Arc<Entry>, line: NewLine) {
        // Counted first: it may be written before `try_send` is back.
        entry.unwritten.add(1);
        if self.lines.try_send((entry.clone(), line)).is_err() {
            entry.unwritten.written(1);
            metrics::counter!("leasehold_log_lines_dropped_total").increment(1);
        }
    }

    /// Waits until the store has answered to all lines of an entry.
    pub(super) async fn flush(&self, entry: &Entry) {
        while !entry.unwritten.is_empty() {
            let written = entry.unwritten.told();
            if entry.unwritten.is_empty() {
                return;
            }
            self.hurry.notify_one();
            written.await;
        }
    }
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

/// Carries lines to the store until `done`, and then those that wait. A failure is noted, and never becomes the
/// job's (clause L4).
pub(super) async fn log(store: Store, mut receiver: LogReceiver, done: CancellationToken) {
    let most = BATCH.min(store.limits().batch);
    let mut batch = Vec::with_capacity(most);
    loop {
        let count = tokio::select! {
            biased;
            count = receiver.lines.recv_many(&mut batch, most) => count,
            // An attempt that a handler gave away may live on, and with it a sender.
            () = done.cancelled(), if !receiver.lines.is_closed() => {
                receiver.lines.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let (appends, entries) = by_lease(std::mem::take(&mut batch));
        if let Err(error) = store.backend().append_logs(store.deadline(), AppendLogs { appends }).await {
            tracing::warn!(%error, "log lines could not be written");
        }
        entries.iter().for_each(|(entry, lines)| entry.unwritten.written(*lines));
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = receiver.hurry.notified() => {}
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
    let append = |(entry, lines): (Arc<Entry>, Vec<NewLine>)| {
        let (count, position) = (lines.len(), entry.number_lines(lines.len() as u64));
        (LogAppend { job: entry.job, token: entry.token, position, lines }, (entry, count))
    };
    order.into_iter().filter_map(|token| by_token.remove(&token)).map(append).unzip()
}
