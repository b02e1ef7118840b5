use std::collections::BTreeSet;

use leasehold_core::backend::{Answer, KindRule, QueueCounts, TagRule};
use leasehold_core::{
    ClaimId, JobId, Kind, LeaseToken, Limit, QueueName, RegisterName, Retention, State, Tag, Timestamp,
    Unique, VersionId, WorkerId,
};
use serde::{Deserialize, Serialize};

pub use super::held::{Append, Extended, Line, Reading, Write};
use super::hint::{Hint, Watching};

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
    /// Something that a watcher was told; the event bears the number of its call of `watch`.
    Told(Hint),
    /// A worker was stopped, and its stop has come to an end.
    Stopped {
        /// The worker.
        worker: WorkerId,
    },
    /// A job as a fresh client saw it when all was over.
    Last(Seen),
    /// The counts of all queues as the same client saw them.
    LastCounts {
        /// The counts.
        counts: Vec<QueueCounts>,
    },
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
    /// A job's log is read.
    ReadLog(Reading),
    /// Jobs are counted.
    Count,
    /// A queue is paused, or goes on.
    SetQueue(Setting),
    /// A worker checks in.
    CheckIn(Presence),
    /// A schedule is written.
    PutRegister(Plan),
    /// A schedule is removed.
    DeleteRegister(RegisterName),
    /// Somebody asks to be told of events.
    Watch(Watching),
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
    /// To a renewal.
    Renew(Vec<Extended>),
    /// To a settlement.
    Settle(Vec<Answer>),
    /// To a recovery.
    Recover(Vec<Answer>),
    /// To an append.
    Log(Vec<Answer>),
    /// To an amendment: what became of each job.
    Amend(Vec<(JobId, Fate)>),
    /// To a pruning.
    Prune(u64),
    /// To a look: what was seen.
    Look(Vec<Seen>),
    /// To the reading of a log.
    ReadLog {
        /// The lines.
        lines: Vec<Line>,
        /// Whether it was said that some are gone.
        gap: bool,
    },
    /// To a count.
    Count(Vec<QueueCounts>),
    /// To a check-in.
    CheckIn {
        /// Whether somebody asked the worker to stop.
        stop: bool,
    },
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
    /// How many crashes it may have.
    #[serde(default)]
    pub crash_budget: u32,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
    /// Its unique key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// Its limit key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// How long it is kept when it has ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retention: Retention,
}

impl Put {
    /// Whether it has no time at which it is due.
    pub(crate) fn is_parked(&self) -> bool {
        self.due == DueAs::At(Timestamp::MAX)
    }
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
    /// Another one holds its key, and got its payload, priority and due time.
    Replaced,
    /// It was not taken in.
    Refused,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its id, from which the tokens derive.
    pub claim: ClaimId,
    /// Who asks.
    pub worker: WorkerId,
    /// For how many.
    pub limit: usize,
    /// From which queues.
    #[serde(default)]
    pub queues: Vec<QueueName>,
    /// Of which kinds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kinds: KindRule,
    /// With which tags.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: TagRule,
    /// Of which priority at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_priority: Option<i16>,
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
    /// How many of its attempts ended with the worker gone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub crashes: u32,
}

/// An amendment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What was to be done.
    pub action: ChangeKind,
    /// Which jobs; none for a filter.
    pub jobs: Option<Vec<JobId>>,
    /// Where to, for a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// Whether it gives them no time at which they are due.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parks: bool,
}

/// What became of one job of an amendment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Fate {
    /// It was changed.
    Applied,
    /// It was so already.
    AlreadyApplied,
    /// It runs, and its holder will be told.
    Requested,
    /// It was not changed, since its state or another holder of its key forbids it.
    Refused,
    /// There is no such job.
    NotFound,
}

/// How a queue is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The queue.
    pub queue: QueueName,
    /// Whether it gives out nothing.
    pub paused: bool,
}

/// A worker that says that it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The worker.
    pub worker: WorkerId,
    /// Whether it is going for good.
    #[serde(default, skip_serializing_if = "is_default")]
    pub leaving: bool,
}

/// A schedule as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: RegisterName,
    /// When it next fires.
    pub next: Option<Timestamp>,
    /// Names this write.
    pub version: VersionId,
    /// Names the write that this one follows.
    pub expected: Option<VersionId>,
    /// The ticks that are to be enqueued from here on, where a real scheduler may have written it: it then says by `next` when
    /// somebody is to look after it, and not only when it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fires: Option<Vec<Timestamp>>,
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
    /// Gives a parked job a due time.
    Unpark,
    /// Cancels a parked job.
    CancelParked,
    /// Only looks.
    Preview,
}

impl ChangeKind {
    /// Whether it may end a job as cancelled.
    pub(crate) fn cancels(self) -> bool {
        matches!(self, Self::Cancel | Self::CancelParked)
    }
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
            Self::ReadLog(_) => "read_logs",
            Self::Count => "counts",
            Self::SetQueue(_) => "set_queue",
            Self::CheckIn(_) => "check_in",
            Self::PutRegister(_) => "put_register",
            Self::DeleteRegister(_) => "delete_register",
            Self::Watch(_) => "watch",
            Self::Other(name) => name,
        }
    }
}

impl Reply {
    /// The answer to one of the writes of a call.
    pub(crate) fn answer(&self, at: usize) -> Option<Answer> {
        match self {
            Self::Renew(answers) => answers.get(at).map(|extended| extended.answer()),
            Self::Settle(answers) | Self::Recover(answers) | Self::Log(answers) => answers.get(at).copied(),
            _ => None,
        }
    }
}

impl Event {
    /// Which of several events of one moment comes first: a call begins before its answer comes.
    pub(crate) fn rank(&self) -> u8 {
        match self.what {
            What::Invoke { .. } | What::Clock { done: false, .. } => 0,
            What::Start(_) | What::Effect(_) | What::End(_) => 1,
            What::Last(_) | What::LastCounts { .. } => 3,
            What::LastOfAll { .. } => 4,
            _ => 2,
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
