//! What can be said of the store's hour at a moment of the history.

use crate::history::event::{Event, What};

/// Bounds of the store's clock, in nanoseconds.
///
/// Without a manual clock the store's time passes as the machine's does, but for a constant that does not matter
/// and for the slack. With one it stands still but for the moves that were recorded.
#[derive(Debug)]
pub(crate) struct Hours {
    moves: Vec<Move>,
    manual: bool,
    slack: i64,
    /// The first hour of all, from which stories count.
    first: i64,
}

#[derive(Debug)]
struct Move {
    begun: u64,
    done: u64,
    to: i64,
}

const MILLI: i64 = 1_000_000;

impl Hours {
    /// Reads the moves and the steps of the clock. What is wrong with them goes to `harness`.
    pub(crate) fn read(events: &[Event], harness: &mut Vec<String>) -> Self {
        let first = events.first().map_or(0, |event| i64::try_from(event.t).unwrap_or(i64::MAX));
        let mut hours = Self { moves: Vec::new(), manual: false, slack: MILLI, first };
        let mut begun = None;
        for event in events {
            match &event.what {
                What::Clock { done: false, .. } => begun = Some(event.t),
                What::Clock { to, done: true } => {
                    let to = to.as_millis().saturating_mul(MILLI);
                    hours.moves.push(Move { begun: begun.take().unwrap_or(event.t), done: event.t, to });
                }
                What::Fault(fault) => hours.slack += fault.step.abs().saturating_mul(MILLI),
                _ => {}
            }
        }
        hours.manual = !hours.moves.is_empty();
        if let Some(first) = hours.moves.first() {
            (hours.first, hours.slack) = (first.to, 0);
            hours.read_first_move(events, harness);
        }
        if !hours.moves.is_sorted_by_key(|step| step.to) {
            harness.push("the manual clock was set back".into());
        }
        hours
    }

    fn read_first_move(&self, events: &[Event], harness: &mut Vec<String>) {
        let first_call = events.iter().find(|event| matches!(event.what, What::Invoke { .. }));
        if first_call.is_some_and(|call| self.moves.first().is_some_and(|first| first.done > call.t)) {
            harness.push("the manual clock's first hour was not recorded before the first call".into());
        }
    }

    /// The store's clock showed this or more at `t`, nanoseconds of the history.
    pub(crate) fn earliest(&self, t: u64) -> i64 {
        if !self.manual {
            return i64::try_from(t).unwrap_or(i64::MAX);
        }
        let done = self.moves.iter().take_while(|step| step.done <= t);
        done.last().map_or(i64::MIN, |step| step.to)
    }

    /// The store's clock showed this or less at `t`; no bound at all where `t` is unknown.
    pub(crate) fn latest(&self, t: u64) -> i64 {
        if t == u64::MAX {
            return i64::MAX;
        }
        if !self.manual {
            return i64::try_from(t).unwrap_or(i64::MAX);
        }
        let begun = self.moves.iter().take_while(|step| step.begun <= t);
        begun.last().map_or(i64::MAX, |step| step.to)
    }

    /// An hour in milliseconds from the first one, as a story tells it.
    pub(crate) fn in_millis(&self, hour: i64) -> f64 {
        hour.saturating_sub(self.first) as f64 / MILLI as f64
    }

    /// Whether a moment is certainly later than another one.
    pub(crate) fn surely_after(&self, earliest: i64, than: i64) -> bool {
        earliest.saturating_sub(self.slack) > than
    }

    /// Whether a moment is certainly not past the end of a lease. An end of exactly now is not yet past.
    pub(crate) fn surely_within(&self, latest: i64, end: i64) -> bool {
        latest.saturating_add(self.slack) <= end
    }

    /// Whether a moment is certainly before a time that is yet to come.
    pub(crate) fn surely_before(&self, latest: i64, due: i64) -> bool {
        latest.saturating_add(self.slack) < due
    }

    /// Whether the hours are those of a manual clock, and so comparable with the store's timestamps.
    pub(crate) fn are_the_stores(&self) -> bool {
        self.manual
    }
}

/// Milliseconds of a span or timestamp, as [`Hours`] counts.
pub(crate) fn nanos(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(MILLI)
}

/// A span, as [`Hours`] counts.
pub(crate) fn nanos_of(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
