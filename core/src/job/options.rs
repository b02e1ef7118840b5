use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::State;
use crate::backend::Action;
use crate::name::{LimitKey, Tag, UniqueKey};
use crate::policy::RetryPolicy;
use crate::time::Timestamp;

/// Everything about a job that has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobOptions {
    /// Higher runs first (clause C6). Defaults to 0; see [`limits::PRIORITY`](crate::limits::PRIORITY).
    pub priority: i16,
    /// How often the job may be attempted (clause C4). Defaults to 20.
    pub max_attempts: u32,
    /// How many of its attempts may end with the worker gone; one more and it is poison (clause C5).
    /// Defaults to 3.
    pub crash_budget: u32,
    /// Labels that a claim can ask for (clause C7). Defaults to none.
    pub tags: BTreeSet<Tag>,
    /// Lets one job in at a time (clause P4). Defaults to none.
    pub unique: Option<Unique>,
    /// Bounds how many such jobs run at once (clause C9). Defaults to none.
    pub limit: Option<Limit>,
    /// The lease of each attempt, in place of the worker's. Defaults to the worker's.
    pub lease: Option<Duration>,
    /// How long one attempt may run, in place of the handler's. Defaults to the handler's.
    pub timeout: Option<Duration>,
    /// When a failed attempt is tried again, in place of the worker's policy. Defaults to the worker's.
    pub retry: Option<RetryPolicy>,
    /// How long the ended job is kept (clause F5).
    pub retention: Retention,
    /// Trace context and the like, handed on to the handler. Names keep to the rules of names, values are kept as
    /// they are. Defaults to none.
    pub headers: BTreeMap<String, String>,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            priority: 0,
            max_attempts: 20,
            crash_budget: 3,
            tags: BTreeSet::new(),
            unique: None,
            limit: None,
            lease: None,
            timeout: None,
            retry: None,
            retention: Retention::default(),
            headers: BTreeMap::new(),
        }
    }
}

impl JobOptions {
    /// Whether all but the priority is as by default, as for most jobs.
    pub fn are_usual(&self) -> bool {
        *self == Self { priority: self.priority, ..Self::default() }
    }
}

/// A key that one job at a time may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The key; one namespace for the whole store, so put the queue or kind into it where it should count.
    pub key: UniqueKey,
    /// How long the job holds it.
    pub scope: UniqueScope,
    /// What becomes of this job where another one holds the key. Defaults to [`OnConflict::Keep`].
    #[serde(default, skip_serializing_if = "OnConflict::is_keep")]
    pub on_conflict: OnConflict,
}

impl Unique {
    /// A key that a newcomer leaves to whoever holds it.
    pub fn new(key: UniqueKey, scope: UniqueScope) -> Self {
        Self { key, scope, on_conflict: OnConflict::Keep }
    }

    /// The same, with another rule for a key that is held.
    #[must_use]
    pub fn on_conflict(self, on_conflict: OnConflict) -> Self {
        Self { on_conflict, ..self }
    }

    /// Whether a job takes it again that this brings back.
    pub fn is_taken_again(&self, action: &Action, was_claimed: bool) -> bool {
        match (action, self.scope) {
            (Action::Requeue { .. } | Action::Restore, UniqueScope::UntilFinished) => true,
            (Action::Restore, UniqueScope::UntilClaimed) => !was_claimed,
            _ => false,
        }
    }
}

/// What a newcomer does to the job that holds its unique key. It is the newcomer's own to say.
///
/// Only a holder that waits, and is of the same kind, is ever changed. It keeps its id, its queue, its other options and
/// the attempts that it has spent; what it had reported as its progress belonged to the older payload, and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnConflict {
    /// Nothing: the newcomer is dropped, and its producer told who holds the key.
    #[default]
    Keep,
    /// The holder gets the newcomer's payload, priority and due time.
    Replace,
    /// The same, but the due time is never later than `at_most` after the holder was taken in: so each newcomer with a
    /// delay pushes the job back, and it runs in the end.
    Debounce {
        /// How long after it was first taken in the job is due at the latest.
        at_most: Duration,
    },
}

impl OnConflict {
    /// Whether it leaves the holder as it is.
    pub fn is_keep(&self) -> bool {
        *self == Self::Keep
    }

    /// When a holder that was taken in at `since` is due once a newcomer that wants to be `due` then replaced it.
    pub fn due(self, due: Timestamp, since: Timestamp) -> Timestamp {
        match self {
            Self::Keep | Self::Replace => due,
            Self::Debounce { at_most } => due.min(since.plus(at_most)),
        }
    }
}

/// How long a job holds its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UniqueScope {
    /// Until it is claimed for the first time.
    UntilClaimed,
    /// Until it has ended; an ended job that is requeued takes the key again.
    UntilFinished,
    /// For this long from its enqueue by the store's clock, ended or not, unless it is deleted.
    For(Duration),
}

/// A key under which at most `max` jobs run at once, whatever their queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The key; one namespace for the whole store.
    pub key: LimitKey,
    /// How many may run at once, this one included. Each job brings its own number.
    pub max: u32,
    /// What becomes of the job when it would be given out and so many run. Defaults to [`WhenFull::Wait`].
    #[serde(default, skip_serializing_if = "WhenFull::is_wait")]
    pub when_full: WhenFull,
}

impl Limit {
    /// At most so many at once; a job for which there is no room waits.
    pub fn new(key: LimitKey, max: u32) -> Self {
        Self { key, max, when_full: WhenFull::Wait }
    }

    /// At most one at once.
    pub fn one(key: LimitKey) -> Self {
        Self::new(key, 1)
    }

    /// The same, but a job for which there is no room ends.
    #[must_use]
    pub fn or_end(self) -> Self {
        Self { when_full: WhenFull::End, ..self }
    }
}

/// What becomes of a job for which there is no room under its limit key when it would be given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits for room.
    #[default]
    Wait,
    /// It ends as cancelled, for the reason [`LimitReached`](crate::Reason::LimitReached).
    End,
}

impl WhenFull {
    /// Whether the job waits.
    pub fn is_wait(&self) -> bool {
        *self == Self::Wait
    }
}

/// How long an ended job is kept, by how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// After success. Defaults to 7 days.
    pub succeeded: Keep,
    /// After failure. Defaults to 180 days.
    pub failed: Keep,
    /// After cancellation. Defaults to 1 day.
    pub cancelled: Keep,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |n: u64| Keep::For(Duration::from_hours(24 * n));
        Self { succeeded: days(7), failed: days(180), cancelled: days(1) }
    }
}

impl Retention {
    /// How long a job is kept that ended in this state; for any other, as after cancellation.
    pub const fn of(&self, end: State) -> Keep {
        match end {
            State::Succeeded => self.succeeded,
            State::Failed => self.failed,
            _ => self.cancelled,
        }
    }
}

/// How long to keep something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// At least this long; then the next pruning removes it.
    For(Duration),
    /// Until somebody deletes it.
    Forever,
}

impl Keep {
    /// For how long; none for ever.
    pub const fn span(self) -> Option<Duration> {
        match self {
            Self::For(span) => Some(span),
            Self::Forever => None,
        }
    }

    /// From when on what ended `now` may be removed; none if never.
    pub fn until(self, now: Timestamp) -> Option<Timestamp> {
        self.span().map(|span| now.plus(span))
    }
}
