//! What a parent and its children say to each other: one line of JSON each.

use std::path::PathBuf;

use leasehold_core::backend::Answer;
use leasehold_core::{JobId, LeaseToken, Timestamp};
use serde::{Deserialize, Serialize};

use super::step::Plan;

/// What a child is told before it begins, in the environment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Which of the harnesses of this program opens the store.
    pub(crate) server: String,
    /// The name of the place.
    pub(crate) place: String,
    /// The file of the clock that all go by; none where the store goes by its own.
    pub(crate) clock: Option<PathBuf>,
    /// What the process is called in the history.
    pub(crate) process: String,
    /// Where it writes its history.
    pub(crate) history: PathBuf,
    /// What its line casts its dice with.
    pub(crate) seed: u64,
}

impl Role {
    /// The environment variable that it is told in.
    pub(crate) const VARIABLE: &str = "CONFORMANCE_ROLE";

    /// What this process was told, if it is a child.
    pub(crate) fn told() -> Option<serde_json::Result<Self>> {
        let told = std::env::var(Self::VARIABLE).ok()?;
        Some(serde_json::from_str(&told))
    }
}

/// What a child is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Kill yourself wherever you come to this point.
    DieAt(String),
    /// Say so and fall asleep when you first come to this point.
    SleepAt(String),
    /// Take a step of the crash matrix.
    Take(Plan),
    /// Run a worker until nothing is due, and say how many jobs succeeded.
    Work,
    /// Run a worker on the payloads of a raw queue until nothing is due, and say each that is run.
    WorkRaw,
    /// Run a worker on the jobs of flows until nothing is due, and say the number of each that is run.
    WorkFlows,
    /// Do so many times what clients in a storm do, and say so each time.
    Rage { seed: u64, steps: usize, chaos: bool },
    /// Enqueue a job under each of these unique keys, and say which were taken in.
    Produce(Vec<String>),
    /// Enqueue a job that is due at once and one that is due after so many seconds.
    ProduceLater(u64),
    /// Claim so many jobs under leases of so many seconds.
    Claim(usize, u64),
    /// Renew what you hold.
    Renew,
    /// Write a line to the log of what you hold.
    Log,
    /// Settle what you hold.
    Settle(Ending),
    /// Forget what you hold.
    Drop,
    /// Take back whatever ran out.
    Recover,
    /// Try to take back these leases, whether or not they ran out.
    Seize(Vec<(JobId, LeaseToken)>),
    /// Tell the store's hour and your own.
    Hours,
    /// Take the lock of this name, with a lease of so many seconds, if nobody has it; and keep it.
    Lock(String, u64),
    /// Give back the lock that you took, and say whether it was still your own: 1, or 0.
    Unlock,
    /// Look so many times for schedules that are due, fire them, and count the looks.
    Fire(u64),
    /// Run a worker that fires schedules too, for so many seconds, and say how many jobs succeeded.
    Recur(u64),
    /// Do what there is in this queue until it gives nothing more, and say how many jobs that were.
    Consume(String),
}

/// How a child settles.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    Succeed,
    RetryIn(u64),
}

/// What a child says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// It has opened the store, or armed itself.
    Ready,
    /// It has taken one of many steps, or comes to where it is to sleep.
    Step,
    /// It has done what it was told.
    Done,
    /// It was answered so.
    Answers(Vec<Answer>),
    /// These jobs were taken in.
    Jobs(Vec<JobId>),
    /// It was given these jobs, under these leases.
    Leases(Vec<(JobId, LeaseToken)>),
    /// So many.
    Count(u64),
    /// It has the lock, with this token; or somebody else has it.
    Token(Option<u64>),
    /// The store's hour and its own.
    Hours(Timestamp, Timestamp),
    /// It could not do it, and why.
    Broke(String),
    /// Nothing more: it has ended.
    Gone,
}
