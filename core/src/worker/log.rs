use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

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
pub(super) struct LogSender(mpsc::Sender<(Arc<Entry>, NewLine)>);

pub(super) type LogReceiver = mpsc::Receiver<(Arc<Entry>, NewLine)>;

pub(super) fn channel() -> (LogSender, LogReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (LogSender(sender), receiver)
}

impl LogSender {
    pub(super) fn send(&self, entry: &Arc<Entry>, line: NewLine) {
        if self.0.try_send((entry.clone(), line)).is_err() {
            metrics::counter!("leasehold_log_lines_dropped_total").increment(1);
        }
    }
}

/// Carries lines to the store until nobody can hand in another. A failure is noted, and never becomes the
/// job's (clause L4).
pub(super) async fn log(store: Store, mut lines: LogReceiver) {
    let mut batch = Vec::with_capacity(BATCH);
    while lines.recv_many(&mut batch, BATCH).await > 0 {
        let appends = by_lease(std::mem::take(&mut batch));
        if let Err(error) = store.backend().append_logs(store.deadline(), AppendLogs { appends }).await {
            tracing::warn!(%error, "log lines could not be written");
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn by_lease(lines: Vec<(Arc<Entry>, NewLine)>) -> Vec<LogAppend> {
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
    let append = |(entry, lines): (Arc<Entry>, Vec<NewLine>)| LogAppend {
        job: entry.job,
        token: entry.token,
        position: entry.number_lines(lines.len() as u64),
        lines,
    };
    order.into_iter().filter_map(|token| by_token.remove(&token)).map(append).collect()
}
