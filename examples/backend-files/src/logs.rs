use std::collections::{BTreeMap, HashMap};

use leasehold_core::backend::{Answer, AppendLogs, LogAppend, LogLine, LogPage, LogSource, ReadLogs};
use leasehold_core::{JobId, Result, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::schema::{Change, Tables};

/// How much is kept of one job and of all (clause L1). A line counts as its message and so much more that a job has
/// no more than 1,024 of them. Whoever appends or reads walks over all lines, of which there are few.
const JOB_BYTES: usize = 1 << 20;
const STORE_BYTES: usize = 16 << 20;
const LINE_BYTES: usize = 1 << 10;

/// The lines of all jobs. One sequence numbers them all, so a job's and a worker's lines are the same ones.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Logs {
    last: u64,
    lines: BTreeMap<u64, LogLine>,
    /// The last line that fell to a cap, by job and by worker.
    dropped: HashMap<Uuid, u64>,
}

pub(crate) fn append(tables: &mut Tables, now: Timestamp, request: AppendLogs) -> Result<Vec<Answer>> {
    Ok(request.appends.into_iter().map(|append| one(tables, now, append)).collect())
}

fn one(tables: &mut Tables, now: Timestamp, append: LogAppend) -> Answer {
    let Some(row) = tables.held(append.job, append.token) else { return Answer::Lost };
    let (known, count) = (row.logged.saturating_sub(append.position), append.lines.len() as u64);
    if count > 0 && known >= count {
        return Answer::AlreadyApplied;
    }
    let logged = row.logged.max(append.position.saturating_add(count));
    let (attempt, worker) = (row.job.attempt, row.job.worker);
    let new = append.lines.into_iter().skip(known as usize);
    let mut lines: Vec<_> = new.map(|line| LogLine::new(0, append.job, attempt, worker, now, line)).collect();
    tables.logs.number(&mut lines);
    tables.change(Change::Logged(append.job, logged, lines));
    Answer::Applied
}

pub(crate) fn read(tables: &mut Tables, _: Timestamp, request: ReadLogs) -> Result<LogPage> {
    let of = match request.source {
        LogSource::Job(job) => *job.as_uuid(),
        LogSource::Worker(worker) => *worker.as_uuid(),
    };
    let after = tables.logs.lines.range(request.after.saturating_add(1)..).map(|(_, line)| line);
    let lines = after.filter(|line| owners(line).contains(&Some(of))).take(request.limit).cloned().collect();
    Ok(LogPage { lines, gap: tables.logs.dropped.get(&of).is_some_and(|dropped| *dropped > request.after) })
}

impl Logs {
    /// Gives lines that are to be added their sequences.
    pub(crate) fn number(&self, lines: &mut [LogLine]) {
        lines.iter_mut().zip(self.last + 1..).for_each(|(line, sequence)| line.sequence = sequence);
    }

    pub(crate) fn add(&mut self, job: JobId, lines: Vec<LogLine>) {
        self.last = lines.last().map_or(self.last, |line| line.sequence);
        self.lines.extend(lines.into_iter().map(|line| (line.sequence, line)));
        self.cap(JOB_BYTES, |line| line.job == job);
        self.cap(STORE_BYTES, |_| true);
    }

    /// Removes the log of a job that is deleted. Its lines fall to no cap: a worker's reader sees no gap.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.lines.retain(|_, line| line.job != job);
        self.dropped.remove(job.as_uuid());
    }

    /// Drops the oldest of these lines until no more than so many bytes are left.
    fn cap(&mut self, bytes: usize, of: impl Fn(&LogLine) -> bool) {
        let size_of = |line: &LogLine| if of(line) { line.message.len() + LINE_BYTES } else { 0 };
        let mut size: usize = self.lines.values().map(size_of).sum();
        let over = self.lines.extract_if(.., |_, line| {
            let drops = size > bytes && of(line);
            size -= if drops { size_of(line) } else { 0 };
            drops
        });
        for (sequence, line) in over {
            self.dropped.extend(owners(&line).into_iter().flatten().map(|owner| (owner, sequence)));
        }
    }
}

/// By whom a line is read: its job and its worker.
fn owners(line: &LogLine) -> [Option<Uuid>; 2] {
    [Some(*line.job.as_uuid()), line.worker.map(|worker| *worker.as_uuid())]
}
