use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foldhash::HashMap;
use leasehold_core::backend::{Answer, AppendLogs, Event, LogAppend, LogLine, LogPage, LogSource, ReadLogs};
use leasehold_core::{JobId, Timestamp, WorkerId};

use crate::config::Config;
use crate::schema::Tables;

/// The lines of all jobs. One sequence numbers them all, so a job's and a worker's lines are the same ones.
#[derive(Default)]
pub(crate) struct Logs {
    last: u64,
    lines: BTreeMap<u64, LogLine>,
    bytes: usize,
    jobs: HashMap<JobId, JobLog>,
    workers: HashMap<WorkerId, WorkerLog>,
}

#[derive(Default)]
struct JobLog {
    lines: VecDeque<u64>,
    bytes: usize,
    /// The last line that fell to a cap.
    dropped: u64,
}

#[derive(Default)]
struct WorkerLog {
    lines: BTreeSet<u64>,
    /// The last line that fell to a cap.
    dropped: u64,
}

pub(crate) fn append(tables: &mut Tables, now: Timestamp, request: AppendLogs) -> Vec<Answer> {
    request.appends.into_iter().map(|append| one(tables, now, append)).collect()
}

fn one(tables: &mut Tables, now: Timestamp, append: LogAppend) -> Answer {
    let Some(slot) = tables.held(append.job, append.token) else { return Answer::Lost };
    let row = &mut tables.rows[slot];
    let known = row.logged.saturating_sub(append.position);
    let lines = append.lines.len() as u64;
    if lines > 0 && known >= lines {
        return Answer::AlreadyApplied;
    }
    row.logged = row.logged.max(append.position.saturating_add(lines));
    for line in append.lines.into_iter().skip(known as usize) {
        let line = LogLine::new(0, append.job, row.job.attempt, row.job.worker, now, line);
        tables.logs.take_in(append.job, line, &tables.config);
    }
    let (job, queue) = (append.job, row.queue);
    if lines > 0 && tables.watched {
        let queue = tables.queues[queue].name.clone();
        tables.tell(Event::Logged { job, queue });
    }
    Answer::Applied
}

impl Logs {
    pub(crate) fn read(&self, request: ReadLogs) -> LogPage {
        let (after, limit) = (request.after, request.limit);
        let lines = |sequences: &mut dyn Iterator<Item = &u64>| {
            sequences.take(limit).filter_map(|sequence| self.lines.get(sequence).cloned()).collect()
        };
        match request.source {
            LogSource::Job(job) => self.jobs.get(&job).map(|log| {
                let from = log.lines.partition_point(|sequence| *sequence <= after);
                LogPage { lines: lines(&mut log.lines.range(from..)), gap: log.dropped > after }
            }),
            LogSource::Worker(worker) => self.workers.get(&worker).map(|log| {
                let from = after.saturating_add(1);
                LogPage { lines: lines(&mut log.lines.range(from..)), gap: log.dropped > after }
            }),
        }
        .unwrap_or_default()
    }

    /// Removes the log of a job that is deleted. Its lines fall to no cap: a worker's reader sees no gap.
    pub(crate) fn forget(&mut self, job: JobId) {
        let Some(log) = self.jobs.remove(&job) else { return };
        for sequence in log.lines {
            self.remove(sequence);
        }
    }

    /// Forgets that a worker had lines, if it has none any more.
    pub(crate) fn forget_worker(&mut self, worker: WorkerId) {
        if self.workers.get(&worker).is_some_and(|log| log.lines.is_empty()) {
            self.workers.remove(&worker);
        }
    }

    /// Adds a line of this job under the next sequence.
    pub(crate) fn take_in(&mut self, job: JobId, mut line: LogLine, config: &Config) {
        self.last += 1;
        (line.sequence, line.job) = (self.last, job);
        let (sequence, size) = (self.last, size_of(&line));
        let log = self.jobs.entry(job).or_default();
        log.lines.push_back(sequence);
        log.bytes += size;
        self.bytes += size;
        if let Some(worker) = line.worker {
            self.workers.entry(worker).or_default().lines.insert(sequence);
        }
        self.lines.insert(sequence, line);
        while self.jobs.get(&job).is_some_and(|log| {
            log.lines.len() > config.log_lines_per_job || log.bytes > config.log_bytes_per_job
        }) {
            self.drop_oldest(job);
        }
        while self.bytes > config.log_bytes
            && let Some(job) = self.lines.first_key_value().map(|(_, line)| line.job)
        {
            self.drop_oldest(job);
        }
    }

    /// Drops the oldest line of a job. The oldest of all is the oldest of its job too.
    fn drop_oldest(&mut self, job: JobId) {
        let Some(log) = self.jobs.get_mut(&job) else { return };
        let Some(sequence) = log.lines.pop_front() else { return };
        log.dropped = sequence;
        if let Some(line) = self.remove(sequence) {
            if let Some(log) = self.jobs.get_mut(&job) {
                log.bytes -= size_of(&line);
            }
            if let Some(log) = line.worker.and_then(|worker| self.workers.get_mut(&worker)) {
                log.dropped = log.dropped.max(sequence);
            }
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<LogLine> {
        let line = self.lines.remove(&sequence)?;
        self.bytes -= size_of(&line);
        if let Some(log) = line.worker.and_then(|worker| self.workers.get_mut(&worker)) {
            log.lines.remove(&sequence);
        }
        Some(line)
    }
}

/// What a line counts for at the caps: its message, and 64 bytes so that empty lines are bounded too.
fn size_of(line: &LogLine) -> usize {
    line.message.len() + 64
}
