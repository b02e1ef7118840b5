use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::{JobId, LeaseToken, WorkerId};
use crate::time::Timestamp;

/// Asks for log lines to be added.
#[derive(Debug, Clone, Default)]
pub struct AppendLogs {
    /// By job.
    pub appends: Vec<LogAppend>,
}

/// Lines of one running job.
#[derive(Debug, Clone)]
pub struct LogAppend {
    /// The held job.
    pub job: JobId,
    /// The right to it.
    pub token: LeaseToken,
    /// The position of the first line among all that were written under this lease, from 0: what a
    /// repeated append is recognised by (E2).
    pub position: u64,
    /// The lines, in order.
    pub lines: Vec<NewLine>,
}

/// A line to be added; the store adds sequence, time, worker and attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLine {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
}

impl NewLine {
    /// A line that is kept with its level's name.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if there is no such level.
    pub fn read(level: &str, message: impl Into<String>) -> Result<Self> {
        let why = || Error::corrupt(format!("there is no log level {level:?}"));
        Ok(Self { level: level.parse().map_err(|_| why())?, message: message.into() })
    }
}

/// How much a log line matters.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Level {
    /// For whoever hunts a defect.
    Debug,
    /// The ordinary course.
    Info,
    /// Out of the ordinary.
    Warn,
    /// Went wrong.
    Error,
}

/// Whose lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogSource {
    /// Those of one job.
    Job(JobId),
    /// Those of all jobs that one worker ran. What it says itself is in [its record](super::WorkerInfo::log).
    Worker(WorkerId),
}

/// Asks for log lines.
#[derive(Debug, Clone, Copy)]
pub struct ReadLogs {
    /// Whose.
    pub source: LogSource,
    /// Only lines after this sequence of the source; 0 for all there are.
    pub after: u64,
    /// At most this many.
    pub limit: usize,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// Its place: larger than that of every earlier line of the source, never reused (L2).
    pub sequence: u64,
    /// The job that wrote it.
    pub job: JobId,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// The worker that ran it.
    pub worker: Option<WorkerId>,
    /// When the store took it in.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
}

impl LogLine {
    /// A line as the store took it in.
    pub fn new(
        sequence: u64,
        job: JobId,
        attempt: u32,
        worker: Option<WorkerId>,
        at: Timestamp,
        line: NewLine,
    ) -> Self {
        Self { sequence, job, attempt, worker, at, level: line.level, message: line.message }
    }
}

/// How much a store keeps of logs; at a cap the oldest lines go (L1). Of bytes, each line counts as its message and
/// 64 more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCaps {
    /// Lines of one job. Defaults to 1,000.
    pub job_lines: u64,
    /// Bytes of one job. Defaults to 1 MiB.
    pub job_bytes: u64,
    /// Bytes of all jobs. Defaults to 256 MiB.
    pub store_bytes: u64,
}

impl Default for LogCaps {
    fn default() -> Self {
        Self { job_lines: 1_000, job_bytes: 1 << 20, store_bytes: 256 << 20 }
    }
}

/// Some lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Whether lines between the asked sequence and these fell to the cap (L3).
    pub gap: bool,
}
