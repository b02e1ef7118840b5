//! What holders write, and what is read of their logs.

use leasehold_core::backend::Answer;
use leasehold_core::{JobId, LeaseToken, QueueName, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::is_default;

/// One write under a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// The job.
    pub job: JobId,
    /// The lease.
    pub token: LeaseToken,
    /// The verdict's name; empty for a renewal or an append.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// The lease of a renewal or the delay of a verdict, in milliseconds.
    #[serde(default)]
    pub span: u64,
    /// The queue that a retry sends the job to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// The lines of an append, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<Append>,
}

/// The lines of an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The position of the first one under its lease.
    pub position: u64,
    /// A hash of each.
    pub lines: Vec<u64>,
}

/// A reading of a job's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The job.
    pub job: JobId,
    /// Only lines after this sequence.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

/// A line of a log as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its sequence.
    pub sequence: u64,
    /// A hash of what it says.
    pub says: u64,
}

/// What became of one renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extended {
    /// The job is still held.
    Held {
        /// The end of its lease, by the store's clock.
        until: Timestamp,
        /// Whether it was said that somebody wants the job cancelled.
        #[serde(default, skip_serializing_if = "is_default")]
        cancel: bool,
    },
    /// It is not.
    Lost,
}

impl Extended {
    /// The same as the answer to another write.
    pub fn answer(self) -> Answer {
        match self {
            Self::Held { .. } => Answer::Applied,
            Self::Lost => Answer::Lost,
        }
    }
}
