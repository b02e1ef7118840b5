use leasehold_core::backend::Answer;
use leasehold_core::{ClaimId, JobId, Kind, LeaseToken, QueueName, State, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds by [`monotonic`](super::monotonic).
    pub t: u64,
    /// By which process; one that was started again is another one, such as `w3#2`.
    pub p: String,
    /// Which call of that process it belongs to; 0 for what is no call.
    pub op: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub enum What {
    /// A call begins.
    Invoke {
        /// The call.
        #[serde(flatten)]
        call: Call,
    },
    /// A call was answered.
    Ok {
        /// The answer.
        #[serde(flatten)]
        reply: Reply,
    },
    /// A call certainly had no effect.
    Fail {
        /// Why.
        why: String,
    },
    /// A call may have had its effect, may have it later, or never.
    Info {
        /// Why nothing is known.
        why: String,
    },
    /// A handler begins.
    Start(Attempt),
    /// A handler had its effect on the world.
    Effect(Attempt),
    /// A handler has ended.
    End(Attempt),
    /// The store's manual clock is moved: before, and after.
    Clock {
        /// To this hour.
        to: Timestamp,
        /// Whether it shows that hour by now.
        done: bool,
    },
    /// Something was broken on purpose.
    Fault(Fault),
    /// A remark.
    Note {
        /// What it says.
        text: String,
    },
    /// A job as a fresh client saw it when all was over.
    Last(Seen),
    /// The end of that reading.
    LastOfAll {
        /// How many jobs there were.
        jobs: usize,
    },
}

/// A call of the contract, with what a checker needs of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", content = "a", rename_all = "snake_case")]
pub enum Call {
    /// Jobs are enqueued.
    Enqueue(Vec<Put>),
    /// Jobs are claimed.
    Claim(Asked),
    /// Leases are renewed.
    Renew(Vec<Write>),
    /// Attempts are settled.
    Settle(Vec<Write>),
    /// Lost leases are recovered.
    Recover(Vec<Write>),
    /// Lines are logged.
    Log(Vec<Write>),
    /// Jobs are amended.
    Amend(Change),
    /// Ended jobs are pruned.
    Prune,
    /// Jobs are looked at, by id or in a list.
    Look,
    /// Another method, which changes no job.
    Other(String),
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", content = "r", rename_all = "snake_case")]
pub enum Reply {
    /// To an enqueue: for each job the one that is there now, and what happened.
    Enqueue(Vec<(JobId, Entry)>),
    /// To a claim.
    Claim(Vec<Granted>),
    /// To a renewal; [`Answer::Applied`] stands for held.
    Renew(Vec<Answer>),
    /// To a settlement.
    Settle(Vec<Answer>),
    /// To a recovery.
    Recover(Vec<Answer>),
    /// To an append.
    Log(Vec<Answer>),
    /// To an amendment: those jobs that it changed.
    Amend(Vec<JobId>),
    /// To a pruning.
    Prune(u64),
    /// To a look: what was seen.
    Look(Vec<Seen>),
    /// To another method.
    Other,
}

/// A job as it was enqueued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Put {
    /// Its id.
    pub job: JobId,
    /// Its queue.
    pub queue: QueueName,
    /// Its kind.
    pub kind: Kind,
    /// Its priority.
    pub priority: i16,
    /// When it is due.
    pub due: DueAs,
    /// Its attempts.
    pub max_attempts: u32,
    /// A hash of its payload.
    pub payload: u64,
}

/// When a job was said to be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueAs {
    /// At this moment of the store's clock.
    At(Timestamp),
    /// So many milliseconds after the store took it in.
    In(u64),
}

/// What became of an enqueued job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// It was taken in.
    Created,
    /// It was there.
    Existing,
    /// Another one holds its key.
    Held,
    /// It was not taken in.
    Refused,
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its id, from which the tokens derive.
    pub claim: ClaimId,
    /// Who asks.
    pub worker: WorkerId,
    /// For how many.
    pub limit: usize,
}

/// A job that was given out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// The token of its lease.
    pub token: LeaseToken,
    /// How long the lease is, in milliseconds.
    pub lease: u64,
    /// When the store says that it gave it.
    pub started: Option<Timestamp>,
    /// The job as it was given.
    #[serde(flatten)]
    pub job: Seen,
}

/// A job as it was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id.
    pub job: JobId,
    /// Its state.
    pub state: State,
    /// Its attempt.
    pub attempt: u32,
    /// Its generation.
    pub generation: u32,
    /// Its queue.
    pub queue: QueueName,
    /// Its kind.
    pub kind: Kind,
    /// Its priority.
    pub priority: i16,
    /// When it is due.
    pub due: Timestamp,
    /// A hash of its payload.
    pub payload: u64,
}

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
}

/// An amendment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What was to be done.
    pub action: ChangeKind,
    /// Which jobs; none for a filter.
    pub jobs: Option<Vec<JobId>>,
}

/// What an amendment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Cancels.
    Cancel,
    /// Requeues.
    Requeue,
    /// Deletes.
    Delete,
    /// Moves.
    Move,
    /// Gives another priority.
    Reprioritise,
    /// Gives another due time.
    Postpone,
    /// Only looks.
    Preview,
}

/// An attempt of a job, as its handler knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// The lease that it runs under.
    pub token: LeaseToken,
}

/// Something that was broken on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    pub what: String,
    /// The process that this ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kills: Option<String>,
    /// By how many milliseconds the store's clock was set on or back.
    #[serde(default)]
    pub step: i64,
}

impl Call {
    /// The name of the method.
    pub fn name(&self) -> &str {
        match self {
            Self::Enqueue(_) => "enqueue",
            Self::Claim(_) => "claim",
            Self::Renew(_) => "renew",
            Self::Settle(_) => "settle",
            Self::Recover(_) => "recover",
            Self::Log(_) => "append_logs",
            Self::Amend(_) => "amend",
            Self::Prune => "prune",
            Self::Look => "look",
            Self::Other(name) => name,
        }
    }
}

impl Event {
    /// Which of several events of one moment comes first: a call begins before its answer comes.
    pub(crate) fn rank(&self) -> u8 {
        match self.what {
            What::Invoke { .. } | What::Clock { done: false, .. } => 0,
            What::Start(_) | What::Effect(_) | What::End(_) => 1,
            What::Last(_) => 3,
            What::LastOfAll { .. } => 4,
            _ => 2,
        }
    }
}
