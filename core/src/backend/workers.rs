use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::logs::Level;
use crate::id::WorkerId;
use crate::name::{Kind, QueueName, Tag, WorkerName};
use crate::time::Timestamp;

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// What people call it.
    pub name: WorkerName,
    /// The host it runs on.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its queues.
    pub queues: Vec<QueueName>,
    /// Its kinds; none for any.
    pub kinds: Vec<Kind>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// How many jobs it runs at once.
    pub concurrency: usize,
    /// How many jobs it runs now.
    pub running: usize,
    /// How many attempts it has ended so far.
    pub processed: u64,
    /// What it last said of its own work, outside of jobs, oldest first: its log, which comes with each check-in as a
    /// whole. At most [`limits::WORKER_LINES`](crate::limits::WORKER_LINES).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<WorkerLine>,
}

/// A line of a worker's own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLine {
    /// Its place: one more than that of the line before it, from 1, never reused (L2).
    pub sequence: u64,
    /// How long before the check-in it was said: what its moment is by the store's clock (C8).
    pub age: Duration,
    /// How much it matters.
    pub level: Level,
    /// What it says, cut to [`limits::WORKER_LINE_BYTES`](crate::limits::WORKER_LINE_BYTES).
    pub message: String,
}

impl WorkerInfo {
    /// A worker that has done nothing yet.
    pub fn new(name: WorkerName, host: impl Into<String>, pid: u32) -> Self {
        Self {
            name,
            host: host.into(),
            pid,
            queues: Vec::new(),
            kinds: Vec::new(),
            tags: Vec::new(),
            concurrency: 0,
            running: 0,
            processed: 0,
            log: Vec::new(),
        }
    }
}

/// Says that a worker lives.
#[derive(Debug, Clone)]
pub struct CheckIn {
    /// Which one.
    pub worker: WorkerId,
    /// What it says of itself.
    pub info: WorkerInfo,
    /// It is to be shown lost if it does not check in again for this long.
    pub lost_after: Duration,
    /// Whether it is going for good.
    pub leaving: bool,
}

/// What a worker learns when it checks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckedIn {
    /// Whether somebody asked it to stop.
    pub stop: bool,
}

/// Asks for workers.
#[derive(Debug, Clone, Copy)]
pub struct Workers {
    /// Only those older than this one; none for the first page.
    pub after: Option<WorkerId>,
    /// At most this many.
    pub limit: usize,
}

/// A worker as its store shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerRecord {
    /// Which one.
    pub worker: WorkerId,
    /// What it last said of itself.
    pub info: WorkerInfo,
    /// When it first checked in.
    pub started_at: Timestamp,
    /// When it last checked in.
    pub seen_at: Timestamp,
    /// Whether it has not checked in for as long as it had said.
    pub lost: bool,
    /// Whether it said that it was going.
    pub left: bool,
    /// Whether somebody asked it to stop.
    pub stop_requested: bool,
}

impl WorkerRecord {
    /// A worker that checked in for the first time at `now`.
    pub fn new(worker: WorkerId, info: WorkerInfo, now: Timestamp) -> Self {
        Self { worker, info, started_at: now, seen_at: now, lost: false, left: false, stop_requested: false }
    }

    /// Whether it neither left nor is lost.
    pub fn is_alive(&self) -> bool {
        !self.left && !self.lost
    }

    /// Whether it has not checked in for longer than this by `now`.
    pub fn is_silent_for(&self, span: Duration, now: Timestamp) -> bool {
        self.seen_at.plus(span) < now
    }

    /// Brings `lost` up to `now`: one that neither left nor checked in for longer than it had said is lost.
    pub fn look(&mut self, lost_after: Duration, now: Timestamp) {
        self.lost = !self.left && self.is_silent_for(lost_after, now);
    }
}

/// Asks workers to stop.
#[derive(Debug, Clone)]
pub enum StopWorkers {
    /// This one.
    One(WorkerId),
    /// Those on this host.
    Host(String),
    /// All there are.
    All,
}
