use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, LeaseToken};
use crate::job::{Payload, Reason};
use crate::name::QueueName;

/// Asks for the ends of attempts to be recorded.
#[derive(Debug, Clone, Default)]
pub struct Settle {
    /// The attempts.
    pub settlements: Vec<Settlement>,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The held job.
    pub job: JobId,
    /// The right to it.
    pub token: LeaseToken,
    /// What the job becomes.
    pub verdict: Verdict,
    /// Joins the job's history.
    pub failure: Option<NewFailure>,
}

/// What a job becomes when an attempt has ended. Policy chooses it; the store writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Ends as succeeded.
    Succeed {
        /// Kept verbatim (S6).
        result: Option<Payload>,
    },
    /// Ends as failed.
    Fail {
        /// Why.
        reason: Reason,
    },
    /// Ends as cancelled.
    Cancel {
        /// Why.
        reason: Reason,
    },
    /// Waits for another attempt; this one stays spent.
    Retry {
        /// Why.
        reason: Reason,
        /// Not before this long from now.
        delay: Duration,
        /// In this queue from now on; none is the one that it is in. A job that ends instead of waiting stays where it is.
        queue: Option<QueueName>,
    },
    /// Waits again; the attempt is given back.
    Release {
        /// Why.
        reason: Reason,
        /// Not before this long from now; zero keeps the job's place in its queue.
        delay: Duration,
    },
}

impl Verdict {
    /// The verdict's name, by which a repeated settlement is recognised.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Succeed { .. } => "succeed",
            Self::Fail { .. } => "fail",
            Self::Cancel { .. } => "cancel",
            Self::Retry { .. } => "retry",
            Self::Release { .. } => "release",
        }
    }

    /// Whether the job ends with it.
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeed { .. } | Self::Fail { .. } | Self::Cancel { .. })
    }
}

/// How an attempt failed, as its worker tells it; the store adds attempt, worker and time (S4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFailure {
    /// In which way.
    pub reason: Reason,
    /// The error's class.
    pub class: String,
    /// What it says.
    pub message: String,
}

/// What became of a fenced write (C2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Answer {
    /// It was written.
    Applied,
    /// The same write was there already; nothing changed.
    AlreadyApplied,
    /// The lease is not held any more; nothing changed.
    Lost,
}
