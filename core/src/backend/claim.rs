use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::id::{ClaimId, JobId, WorkerId};
use crate::job::LeasedJob;
use crate::name::{Kind, QueueName, Tag};
use crate::time::Timestamp;

/// Asks for due jobs.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Names this call; make a new one for each claim, and repeat it when the answer was lost (E2).
    pub id: ClaimId,
    /// Who asks.
    pub worker: WorkerId,
    /// From any of these queues; none of them gives nothing.
    pub queues: Vec<QueueName>,
    /// Which kinds. Defaults to any.
    pub kinds: KindRule,
    /// Which tags. Defaults to any.
    pub tags: TagRule,
    /// Only jobs of at least this priority. Defaults to any.
    pub min_priority: Option<i16>,
    /// At most this many.
    pub limit: usize,
    /// The lease of a job that has none of its own.
    pub lease: Duration,
    /// Whether the claimer has leave to take so many under the rates of its queues (F8). A queue with a rate gives
    /// nothing to a claim that has not. Defaults to no.
    pub rated: bool,
}

impl Claim {
    /// A claim with a fresh id, of any kind, tag and priority.
    pub fn new(
        worker: WorkerId,
        queues: impl IntoIterator<Item = QueueName>,
        limit: usize,
        lease: Duration,
    ) -> Self {
        Self {
            id: ClaimId::generate(),
            worker,
            queues: queues.into_iter().collect(),
            kinds: KindRule::Any,
            tags: TagRule::Any,
            min_priority: None,
            limit,
            lease,
            rated: false,
        }
    }
}

/// Which kinds a claim takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindRule {
    /// All.
    #[default]
    Any,
    /// These.
    Only(BTreeSet<Kind>),
    /// All but these.
    Except(BTreeSet<Kind>),
}

impl KindRule {
    /// Whether a job of this kind is taken.
    pub fn takes(&self, kind: &Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Only(kinds) => kinds.contains(kind),
            Self::Except(kinds) => !kinds.contains(kind),
        }
    }
}

/// Which tags a claim takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagRule {
    /// Jobs of any tags or none.
    #[default]
    Any,
    /// Jobs that have all of these: what the worker names is what a job must have.
    JobHasAll(BTreeSet<Tag>),
    /// Jobs all of whose tags are among these: what the job names is what a worker must offer. Jobs
    /// without tags always match.
    WorkerHasAll(BTreeSet<Tag>),
}

impl TagRule {
    /// Whether a job with these tags is taken.
    pub fn takes(&self, tags: &BTreeSet<Tag>) -> bool {
        match self {
            Self::Any => true,
            Self::JobHasAll(wanted) => wanted.is_subset(tags),
            Self::WorkerHasAll(offered) => tags.is_subset(offered),
        }
    }
}

/// What a claim got.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The jobs, in order (C6).
    pub jobs: Vec<LeasedJob>,
    /// Records that could not be read and were taken out of the way (B3).
    pub set_aside: Vec<SetAside>,
    /// How long until the next job of these queues becomes due, where the store can tell cheaply and gave
    /// fewer than asked. Zero if it stopped at jobs that it [ended](crate::limits::ENDED_BY_A_CLAIM) and may find more behind
    /// them. None of a parked one, which becomes due only when it is unparked (P7). A hint.
    pub next_due: Option<Duration>,
}

impl Claimed {
    /// How long it is from `now` until the next job is due, if that is due then; none if it is parked (P7).
    pub fn until(due: Timestamp, now: Timestamp) -> Option<Duration> {
        (due < Timestamp::MAX).then(|| due.since(now))
    }
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its id, if that can be read.
    pub job: Option<JobId>,
    /// What is wrong with it.
    pub why: String,
}

impl SetAside {
    /// The record of this job cannot be read, for this reason.
    pub fn new(job: Option<JobId>, error: impl Display) -> Self {
        Self { job, why: format!("the record cannot be read: {error}") }
    }
}

impl From<SetAside> for Error {
    fn from(bad: SetAside) -> Self {
        Self::new(ErrorKind::Corrupt, bad.why)
    }
}
