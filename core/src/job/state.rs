use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Where a job is in its life. At every moment it is in exactly one state (clause S2).
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
    strum::EnumIter,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Waits, and is due later.
    Scheduled,
    /// Waits, and is due.
    Queued,
    /// Runs under a lease.
    Running,
    /// Ended well. Terminal.
    Succeeded,
    /// Ended badly. Terminal.
    Failed,
    /// Ended because somebody said so. Terminal.
    Cancelled,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// That in which a job that is due then waits `now`.
    pub fn waiting(due: Timestamp, now: Timestamp) -> Self {
        if due > now { Self::Scheduled } else { Self::Queued }
    }

    /// Whether the job has ended; only an explicit requeue leads out of such a state (clause S1).
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether the job waits to be claimed, now or later.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Queued)
    }

    /// Whether `cause` may lead from this state to `to`: whether [`TRANSITIONS`] has that row.
    pub fn may_become(self, to: Self, cause: Cause) -> bool {
        TRANSITIONS.contains(&(Some(self), cause, to))
    }
}

/// What leads from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumIter, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// A producer enqueued it.
    Enqueue,
    /// The store's clock reached its due time.
    Time,
    /// A worker claimed it.
    Claim,
    /// A claim came by, and there was no room under its limit key.
    Overflow,
    /// Its holder settled it as succeeded, failed or aborted.
    Finish,
    /// Its holder wants it tried again; the attempt stays spent.
    Retry,
    /// Its holder gave it back; the attempt is returned.
    Release,
    /// Its lease ran out and a worker took it back.
    Recover,
    /// Somebody cancelled it.
    Cancel,
    /// An operator moved its due time.
    Postpone,
    /// Somebody gave a parked job a due time.
    Unpark,
    /// A producer gave it a newer payload, and a due time with it.
    Replace,
    /// An operator sent an ended job round again.
    Requeue,
    /// It was withdrawn, to go on in another store.
    Withdraw,
    /// One that was withdrawn goes on here after all.
    Restore,
}

/// Every legal transition: from (`None` is before the enqueue), cause, to. Whatever is not here is a defect.
pub const TRANSITIONS: &[(Option<State>, Cause, State)] = &[
    (None, Cause::Enqueue, State::Scheduled),
    (None, Cause::Enqueue, State::Queued),
    (Some(State::Scheduled), Cause::Time, State::Queued),
    (Some(State::Queued), Cause::Claim, State::Running),
    (Some(State::Queued), Cause::Overflow, State::Cancelled),
    (Some(State::Running), Cause::Finish, State::Succeeded),
    (Some(State::Running), Cause::Finish, State::Failed),
    (Some(State::Running), Cause::Finish, State::Cancelled),
    (Some(State::Running), Cause::Retry, State::Scheduled),
    (Some(State::Running), Cause::Retry, State::Queued),
    (Some(State::Running), Cause::Release, State::Scheduled),
    (Some(State::Running), Cause::Release, State::Queued),
    (Some(State::Running), Cause::Recover, State::Scheduled),
    (Some(State::Running), Cause::Recover, State::Queued),
    (Some(State::Running), Cause::Recover, State::Failed),
    (Some(State::Running), Cause::Recover, State::Cancelled),
    (Some(State::Scheduled), Cause::Cancel, State::Cancelled),
    (Some(State::Queued), Cause::Cancel, State::Cancelled),
    (Some(State::Scheduled), Cause::Postpone, State::Scheduled),
    (Some(State::Scheduled), Cause::Postpone, State::Queued),
    (Some(State::Queued), Cause::Postpone, State::Scheduled),
    (Some(State::Queued), Cause::Postpone, State::Queued),
    (Some(State::Scheduled), Cause::Unpark, State::Scheduled),
    (Some(State::Scheduled), Cause::Unpark, State::Queued),
    (Some(State::Scheduled), Cause::Replace, State::Scheduled),
    (Some(State::Scheduled), Cause::Replace, State::Queued),
    (Some(State::Queued), Cause::Replace, State::Scheduled),
    (Some(State::Queued), Cause::Replace, State::Queued),
    (Some(State::Succeeded), Cause::Requeue, State::Scheduled),
    (Some(State::Succeeded), Cause::Requeue, State::Queued),
    (Some(State::Failed), Cause::Requeue, State::Scheduled),
    (Some(State::Failed), Cause::Requeue, State::Queued),
    (Some(State::Cancelled), Cause::Requeue, State::Scheduled),
    (Some(State::Cancelled), Cause::Requeue, State::Queued),
    (Some(State::Scheduled), Cause::Withdraw, State::Cancelled),
    (Some(State::Queued), Cause::Withdraw, State::Cancelled),
    (Some(State::Cancelled), Cause::Restore, State::Scheduled),
    (Some(State::Cancelled), Cause::Restore, State::Queued),
];

/// Why a job is in its state. (state, reason) tells every status that the older systems had.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The handler returned an error.
    Error,
    /// The handler panicked.
    Panic,
    /// The handler ran longer than its time-out.
    Timeout,
    /// The lease ran out with no settlement: the worker crashed, froze or was cut off.
    LeaseExpired,
    /// The worker stopped and gave the job back.
    Interrupted,
    /// The holder gave the job back unasked.
    Released,
    /// The handler asked to be run again.
    RetryRequested,
    /// The handler asked to be run later, with no attempt spent.
    Snoozed,
    /// A rate limit was reached; no attempt spent.
    RateLimited,
    /// The handler ended the job itself.
    Aborted,
    /// Somebody cancelled the job.
    Cancelled,
    /// The last attempt was spent.
    MaxAttempts,
    /// It took its worker down more often than its crash budget allows.
    Poison,
    /// Its payload does not fit its handler.
    BadPayload,
    /// No handler is registered for its kind.
    UnknownKind,
    /// Its record cannot be read.
    Unreadable,
    /// An operator sent it round again.
    Requeued,
    /// An operator moved its due time.
    Postponed,
    /// A producer gave it a newer payload.
    Replaced,
    /// Its concurrency limit was reached and it was told to end rather than wait.
    LimitReached,
    /// Other jobs that it waited for did not end well.
    Dependency,
    /// It was withdrawn, to go on in another store.
    Moved,
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray;

    /// The rules in words, independent of the table, for every combination there is.
    fn legal(from: Option<State>, cause: Cause, to: State) -> bool {
        let waits = to.is_waiting();
        match (from, cause) {
            (None, Cause::Enqueue) => waits,
            (Some(State::Scheduled), Cause::Time) => to == State::Queued,
            (Some(State::Queued), Cause::Claim) => to == State::Running,
            (Some(State::Queued), Cause::Overflow) => to == State::Cancelled,
            (Some(State::Running), Cause::Finish) => to.is_terminal(),
            (Some(State::Running), Cause::Retry | Cause::Release) => waits,
            (Some(State::Running), Cause::Recover) => waits || to == State::Failed || to == State::Cancelled,
            (Some(from), Cause::Cancel | Cause::Withdraw) => from.is_waiting() && to == State::Cancelled,
            (Some(State::Cancelled), Cause::Restore) => waits,
            (Some(from), Cause::Postpone | Cause::Replace) => from.is_waiting() && waits,
            (Some(State::Scheduled), Cause::Unpark) => waits,
            (Some(from), Cause::Requeue) => from.is_terminal() && waits,
            _ => false,
        }
    }

    #[test]
    fn the_table_is_the_rules_and_nothing_else() {
        for from in std::iter::once(None).chain(State::ALL.map(Some)) {
            for &cause in Cause::VARIANTS {
                for to in State::ALL {
                    let listed = TRANSITIONS.contains(&(from, cause, to));
                    assert_eq!(listed, legal(from, cause, to), "{from:?} --{cause}--> {to}");
                }
            }
        }
    }

    #[test]
    fn no_row_stands_twice() {
        for (i, row) in TRANSITIONS.iter().enumerate() {
            assert!(!TRANSITIONS[..i].contains(row), "{row:?}");
        }
    }

    #[test]
    fn an_ended_job_stays_ended_but_by_requeue_and_a_withdrawn_one_by_restoring() {
        for &(from, cause, to) in TRANSITIONS {
            let leaves = matches!(cause, Cause::Requeue | Cause::Restore);
            assert!(!from.is_some_and(State::is_terminal) || leaves, "{from:?} {cause} {to}");
        }
    }

    #[test]
    fn every_state_is_listed_and_reads_back() {
        assert_eq!(State::ALL, State::VARIANTS);
        for state in State::ALL {
            assert_eq!(state.to_string().parse::<State>().unwrap(), state);
        }
    }
}
