//! I15, and when a job certainly waits.

use leasehold_core::backend::Answer;

use super::Judge;
use super::hours::{nanos, nanos_of};
use super::model::{Grant, Kind, Story};
use crate::history::event::DueAs;
use crate::history::verdict::Invariant;

/// A time in which a job waits to be given out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait<'s, 'h> {
    /// The call that made it wait.
    pub(super) op: usize,
    /// From when on it certainly waits.
    pub(super) from: u64,
    /// How long it was to wait at least, from that call on, in nanoseconds; none where that is a timestamp.
    pub(super) delay: Option<i64>,
    /// The attempt that it waits for.
    pub(super) attempt: u32,
    /// Whether that attempt was given back.
    pub(super) given_back: bool,
    /// The grant that ended it, if one did.
    pub(super) next: Option<&'s Grant<'h>>,
}

impl Wait<'_, '_> {
    /// Whether nobody else can have been given the job in between, without our knowing.
    pub(super) fn is_whole(&self) -> bool {
        self.next.is_none_or(|next| next.given.job.attempt == self.attempt && next.i > self.from)
    }
}

impl<'h> Story<'h> {
    /// Every time in which the job certainly waits. Meant for jobs that no operator changed.
    pub(super) fn waits(&self) -> Vec<Wait<'_, 'h>> {
        let next = |after: u64| {
            let later = self.grants.iter().filter(|grant| grant.c > after);
            later.min_by_key(|grant| grant.i)
        };
        let there = self.puts.iter().filter(|put| put.is_there());
        let enqueued = there.min_by_key(|put| put.c).map(|put| Wait {
            op: put.op,
            from: put.c,
            delay: match put.put.due {
                DueAs::In(delay) => Some(nanos(delay)),
                DueAs::At(_) => None,
            },
            attempt: 1,
            given_back: false,
            next: next(0),
        });
        let put_back = self.writes.iter().filter_map(|write| {
            let grant = self.grants.iter().find(|grant| grant.given.token == write.write.token)?;
            let given_back = write.write.verdict == "release";
            let waits = matches!(write.kind, Kind::Settle | Kind::Recover)
                && write.answer == Some(Answer::Applied)
                && (given_back || write.write.verdict == "retry");
            waits.then(|| Wait {
                op: write.op,
                from: write.c,
                delay: Some(nanos(write.write.span)),
                attempt: grant.given.job.attempt + u32::from(!given_back),
                given_back,
                next: next(write.i),
            })
        });
        enqueued.into_iter().chain(put_back).collect()
    }

    /// Whether an operator changed the job, or may have.
    pub(super) fn is_amended(&self) -> bool {
        self.changes.iter().any(|change| !change.pruned)
    }
}

impl Judge<'_, '_> {
    /// I15: once nothing is broken any more, a due job is given out within the time that the rules state.
    pub(super) fn waiting(&mut self) {
        let Some(within) = self.rules.granted_within else { return };
        let (model, story) = (self.model, self.story);
        let Some(put) = story.taken_in() else { return };
        if story.is_amended() || put.limit.is_some() || model.may_be_paused(&put.queue, 0, u64::MAX) {
            return;
        }
        for wait in story.waits().into_iter().filter(Wait::is_whole) {
            let Some(delay) = wait.delay else { continue };
            let still = story.last.is_none_or(|last| last.state.is_waiting());
            let until = match wait.next {
                Some(next) => next.i,
                None if still && !story.may_have_ended() => model.over,
                None => continue,
            };
            let hours = &model.hours;
            let due = hours.latest(wait.from).plus(delay);
            let bound = due.max(hours.latest(model.last_fault)).plus(nanos_of(within));
            if hours.surely_after(hours.earliest(until), bound) {
                let ops = wait.next.map(|next| next.ops.clone()).unwrap_or_default();
                let why = format!("it was due, and was not given out within {within:?}");
                self.find(Invariant::I15, why, ops.into_iter().chain([wait.op]));
            }
        }
    }
}

impl Story<'_> {
    fn may_have_ended(&self) -> bool {
        self.writes.iter().any(|write| {
            matches!(write.kind, Kind::Settle | Kind::Recover)
                && write.answer != Some(Answer::Lost)
                && !matches!(write.write.verdict.as_str(), "retry" | "release")
        })
    }
}
