//! What can be said of the store's hour at a moment of the history.

use leasehold_core::Timestamp;

use crate::history::event::{Event, What};

/// Bounds of the store's clock.
///
/// Without a manual clock the store's time passes as the machine's does, but for a constant that does not matter
/// and for the steps that were recorded. With one it stands still but for the moves that were recorded.
#[derive(Debug)]
pub(crate) struct Hours {
    moves: Vec<Move>,
    manual: bool,
    /// When the clock was stepped, and how far.
    steps: Vec<(u64, i64)>,
    /// The first hour of all, from which stories count.
    first: i64,
}

/// An hour of the store's clock, in nanoseconds, as it was told from a moment of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hour {
    at: i64,
    from: u64,
}

impl Hour {
    /// Before all others.
    pub(crate) const FIRST: Self = Self { at: i64::MIN, from: 0 };

    /// So many nanoseconds later by the store's clock.
    pub(crate) fn plus(self, span: i64) -> Self {
        Self { at: self.at.saturating_add(span), ..self }
    }
}

#[derive(Debug)]
struct Move {
    begun: u64,
    done: u64,
    to: i64,
}

const MILLI: i64 = 1_000_000;

/// How long after it was noted a step of the clock may show, in nanoseconds.
const STEPPING: u64 = 1_000_000_000;

impl Hours {
    /// Reads the moves and the steps of the clock. What is wrong with them goes to `harness`.
    pub(crate) fn read(events: &[Event], harness: &mut Vec<String>) -> Self {
        let first = events.first().map_or(0, |event| i64::try_from(event.t).unwrap_or(i64::MAX));
        let mut hours = Self { moves: Vec::new(), manual: false, steps: Vec::new(), first };
        let mut begun = None;
        for event in events {
            match &event.what {
                What::Clock { done: false, .. } => begun = Some(event.t),
                What::Clock { to, done: true } => {
                    let to = to.as_millis().saturating_mul(MILLI);
                    hours.moves.push(Move { begun: begun.take().unwrap_or(event.t), done: event.t, to });
                }
                What::Fault(fault) if fault.step != 0 => {
                    hours.steps.push((event.t, fault.step.abs().saturating_mul(MILLI)));
                }
                _ => {}
            }
        }
        hours.manual = !hours.moves.is_empty();
        if let Some(first) = hours.moves.first() {
            hours.first = first.to;
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
    pub(crate) fn earliest(&self, t: u64) -> Hour {
        let at = match self.manual {
            false => i64::try_from(t).unwrap_or(i64::MAX),
            true => {
                let done = self.moves.iter().take_while(|step| step.done <= t);
                done.last().map_or(i64::MIN, |step| step.to)
            }
        };
        Hour { at, from: t }
    }

    /// Whether nothing moves the store's clock but calls that are recorded.
    pub(crate) fn is_manual(&self) -> bool {
        self.manual
    }

    /// The store's clock showed this or less at `t`; no bound at all where `t` is unknown.
    pub(crate) fn latest(&self, t: u64) -> Hour {
        let at = match self.manual {
            _ if t == u64::MAX => i64::MAX,
            false => i64::try_from(t).unwrap_or(i64::MAX),
            true => {
                let begun = self.moves.iter().take_while(|step| step.begun <= t);
                begun.last().map_or(i64::MAX, |step| step.to)
            }
        };
        Hour { at, from: t }
    }

    /// The hour that a timestamp of the store names; only a manual clock's can be compared with others.
    pub(crate) fn named(&self, at: Timestamp) -> Option<Hour> {
        let at = at.as_millis().saturating_mul(MILLI);
        self.manual.then_some(Hour { at, from: 0 })
    }

    /// An hour in milliseconds from the first one, as a story tells it.
    pub(crate) fn in_millis(&self, hour: Hour) -> f64 {
        hour.at.saturating_sub(self.first) as f64 / MILLI as f64
    }

    /// Whether a moment is certainly later than another one.
    pub(crate) fn surely_after(&self, earliest: Hour, than: Hour) -> bool {
        earliest.at.saturating_sub(self.slack(earliest, than)) > than.at
    }

    /// Whether a moment is certainly not past the end of a lease. An end of exactly now is not yet past.
    pub(crate) fn surely_within(&self, latest: Hour, end: Hour) -> bool {
        latest.at.saturating_add(self.slack(latest, end)) <= end.at
    }

    /// Whether a moment is certainly before a time that is yet to come.
    pub(crate) fn surely_before(&self, latest: Hour, due: Hour) -> bool {
        latest.at.saturating_add(self.slack(latest, due)) < due.at
    }

    /// By how much two hours may be nearer to each other than they seem, or further apart: the clock rounds, and may
    /// have been stepped between the moments from which they were told.
    fn slack(&self, one: Hour, two: Hour) -> i64 {
        if self.manual {
            return 0;
        }
        let (first, last) = (one.from.min(two.from), one.from.max(two.from).saturating_add(STEPPING));
        let between = self.steps.iter().filter(|(t, _)| first <= t.saturating_add(STEPPING) && *t <= last);
        between.fold(MILLI, |slack, (_, step)| slack.saturating_add(*step))
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
