use std::time::Duration;

use futures::Stream;

use super::store::Store;
use super::wake::{Wake, jittered};
use crate::backend::{Event, Level, LogPage, LogSource, ReadLogs, Watch, WorkerRecord};
use crate::error::Result;
use crate::id::WorkerId;
use crate::time::Timestamp;

/// Lines read in one call while following.
const PAGE: usize = 500;
/// How often new lines are looked for where no event tells of them.
const POLL: Duration = Duration::from_millis(500);

impl Store {
    /// Some lines of a job's or a worker's log after a sequence, oldest first; 0 for all.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn logs(&self, source: LogSource, after: u64, limit: usize) -> Result<LogPage> {
        self.backend().read_logs(self.deadline(), ReadLogs { source, after, limit }).await
    }

    /// Follows a log from after a sequence: pages of lines as they come, for ever. A page whose `gap` is set
    /// comes after lines that fell to the cap before they were read (clause L3). After an error it goes on.
    pub fn follow(
        &self,
        source: LogSource,
        after: u64,
    ) -> impl Stream<Item = Result<LogPage>> + Send + 'static {
        struct Follow {
            store: Store,
            wake: Wake,
            after: u64,
            failed: bool,
        }
        let of_source = move |event: &Event| match (event, source) {
            (Event::Logged { job, .. }, LogSource::Job(wanted)) => *job == wanted,
            (Event::Logged { .. }, LogSource::Worker(_)) => true,
            _ => false,
        };
        let wake = Wake::of(self.backend().clone(), Watch { queues: None, logs: true });
        let start = Follow { store: self.clone(), wake, after, failed: false };
        futures::stream::unfold(start, move |mut follow| async move {
            if follow.failed {
                tokio::time::sleep(jittered(POLL)).await;
            }
            loop {
                follow.wake.listen().await;
                let most = PAGE.min(follow.store.limits().page);
                let page = match follow.store.logs(source, follow.after, most).await {
                    Ok(page) => page,
                    Err(error) => {
                        follow.failed = true;
                        return Some((Err(error), follow));
                    }
                };
                follow.failed = false;
                if let Some(last) = page.lines.last() {
                    follow.after = last.sequence;
                    return Some((Ok(page), follow));
                }
                follow.wake.wait(jittered(POLL), of_source).await;
            }
        })
    }

    /// What a worker says itself, outside of jobs, after a sequence; 0 for all that is kept. Empty for a worker that is not
    /// known. It comes with the worker's check-ins, a second after it was said in most cases, and stays as long as the
    /// worker is remembered. Workers say what they trace: the layer `JobLogs` (feature `job-logs`) takes it from there.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn worker_log(&self, worker: WorkerId, after: u64) -> Result<WorkerLog> {
        let record = self.worker(worker).await?;
        Ok(record.map(|record| WorkerLog::of(record, after)).unwrap_or_default())
    }

    /// Follows what a worker says itself from after a sequence: some lines as they come, for ever. What its jobs say is
    /// [another log](LogSource::Worker). After an error it goes on.
    pub fn follow_worker(
        &self,
        worker: WorkerId,
        after: u64,
    ) -> impl Stream<Item = Result<WorkerLog>> + Send + 'static {
        let start = (self.clone(), after, false);
        futures::stream::unfold(start, move |(store, after, wait)| async move {
            if wait {
                tokio::time::sleep(jittered(POLL)).await;
            }
            loop {
                match store.worker_log(worker, after).await {
                    Ok(log) if log.lines.is_empty() => tokio::time::sleep(jittered(POLL)).await,
                    Ok(log) => {
                        let after = log.lines.last().map_or(after, |last| last.sequence);
                        return Some((Ok(log), (store, after, false)));
                    }
                    Err(error) => return Some((Err(error), (store, after, true))),
                }
            }
        })
    }
}

/// Some lines of a worker's own log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerLog {
    /// The lines, oldest first.
    pub lines: Vec<SaidLine>,
    /// Whether lines between the asked sequence and these are not kept any more (clause L3).
    pub gap: bool,
}

/// A line of a worker's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaidLine {
    /// Its place: larger than that of every earlier line of the worker, never reused (clause L2).
    pub sequence: u64,
    /// When it was said, by the store's clock.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
}

impl WorkerLog {
    fn of(record: WorkerRecord, after: u64) -> Self {
        let gap = record.info.log.first().is_some_and(|first| first.sequence > after.saturating_add(1));
        let seen = record.seen_at;
        let new = record.info.log.into_iter().filter(|line| line.sequence > after);
        let lines = new.map(|line| SaidLine {
            sequence: line.sequence,
            at: seen.minus(line.age),
            level: line.level,
            message: line.message,
        });
        Self { lines: lines.collect(), gap }
    }
}
