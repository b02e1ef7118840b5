use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inspect::{Cursor, Filter};
use crate::id::JobId;
use crate::job::{Due, State};
use crate::name::QueueName;
use crate::policy::Rate;
use crate::time::Timestamp;

/// Asks for jobs to be changed.
#[derive(Debug, Clone)]
pub struct Amend {
    /// Which jobs.
    pub select: Select,
    /// What to do with each.
    pub action: Action,
    /// Whether only to tell what would be done.
    pub preview: bool,
}

/// Which jobs an amendment is for.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "made once per call and never kept in bulk")]
pub enum Select {
    /// These.
    Ids(Vec<JobId>),
    /// Those that match, in the order they were taken in, a bounded batch at a time.
    Matching {
        /// What they must match.
        filter: Filter,
        /// Only jobs taken in at or before this moment, so that a long run ends.
        as_of: Timestamp,
        /// From where on; none at first, then [`Amended::next`].
        after: Option<Cursor>,
        /// At most this many.
        limit: usize,
    },
}

/// What to do with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// End it if it waits; ask for its end if it runs (S5).
    Cancel,
    /// Send it round again if it has ended (S1).
    Requeue {
        /// When it may run.
        due: Due,
    },
    /// Remove it, unless it runs.
    Delete,
    /// Move it to another queue, unless it runs.
    Move {
        /// The other queue.
        queue: QueueName,
    },
    /// Change its priority, in any state.
    Reprioritise {
        /// The new priority.
        priority: i16,
    },
    /// Change when it may run, if it waits.
    Postpone {
        /// The new moment.
        due: Due,
    },
    /// Give it a due time if it is parked (P7).
    Unpark {
        /// When it may run; not [`Due::PARKED`].
        due: Due,
    },
    /// End it if it is parked, as cancelled for [`Reason::Dependency`](crate::job::Reason::Dependency) (P7).
    CancelParked,
    /// Take it out if it waits, to go on in another store: as cancelled for [`Reason::Moved`](crate::job::Reason::Moved) (P8).
    Withdraw,
    /// Let it wait again as it did, if it was withdrawn (P8).
    Restore,
    /// Remove it if it ended at this moment or before, and was not sent round again since.
    DeleteEnded {
        /// By the store's clock.
        by: Timestamp,
    },
}

impl Action {
    /// Whether it removes the job.
    pub const fn deletes(&self) -> bool {
        matches!(self, Self::Delete | Self::DeleteEnded { .. })
    }

    /// Whether a job that waits again by it takes a unique key again.
    pub const fn brings_back(&self) -> bool {
        matches!(self, Self::Requeue { .. } | Self::Restore)
    }
}

/// What became of an amendment.
#[derive(Debug, Clone, Default)]
pub struct Amended {
    /// By job: one item per id in order, or one per job that the filter matched.
    pub jobs: Vec<(JobId, AmendAnswer)>,
    /// Where to go on; none when all are done, or for ids.
    pub next: Option<Cursor>,
}

/// What became of one job of an amendment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmendAnswer {
    /// It was changed, or would be in a preview.
    Applied,
    /// It was so already.
    AlreadyApplied,
    /// It runs, and its worker will learn that it should end.
    Requested,
    /// Its state does not allow it; this is the state.
    Refused(State),
    /// Another job holds its unique key; this is the job.
    Held(JobId),
    /// There is no such job.
    NotFound,
}

/// Asks for a queue's settings to be changed.
#[derive(Debug, Clone)]
pub struct SetQueue {
    /// The queue.
    pub queue: QueueName,
    /// Its settings from now on.
    pub settings: QueueSettings,
}

/// How a queue behaves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueSettings {
    /// Gives out nothing while this is set (C10). Defaults to none.
    pub pause: Option<Pause>,
    /// At most so many of its jobs are claimed per span, over the whole fleet (F8). Defaults to none.
    pub rate: Option<Rate>,
}

impl QueueSettings {
    /// Whether a claim is given jobs, if there are any: one that has leave under the queue's rate, or one that has not.
    pub fn gives(&self, rated: bool) -> bool {
        self.pause.is_none() && (rated || self.rate.is_none())
    }
}

/// Why and by whom a queue is paused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pause {
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A queue and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueRecord {
    /// Its name.
    pub queue: QueueName,
    /// How it behaves.
    pub settings: QueueSettings,
    /// When its settings were last changed; none if they never were.
    pub changed_at: Option<Timestamp>,
}

impl QueueRecord {
    /// A queue and its settings.
    pub fn new(queue: QueueName, settings: QueueSettings, changed_at: Option<Timestamp>) -> Self {
        Self { queue, settings, changed_at }
    }
}

/// Asks for what is over to be removed.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// At most this many jobs, and as many registers.
    pub limit: usize,
    /// Forget workers that have not checked in for this long.
    pub workers_after: Duration,
}

/// What a pruning removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Jobs.
    pub jobs: u64,
    /// Workers.
    pub workers: u64,
    /// Registers that had expired.
    pub registers: u64,
    /// Whether there is more to remove now.
    pub more: bool,
}
