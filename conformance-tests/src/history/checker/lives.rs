//! I5, I6 and I8: one end, counted attempts, and retries that come, but not too soon.

use std::collections::BTreeSet;

use leasehold_core::State;
use leasehold_core::backend::Answer;

use super::Judge;
use super::hours::nanos;
use super::model::{Changed, Fenced, Grant, Kind};
use crate::history::event::ChangeKind;
use crate::history::verdict::Invariant;

/// The certain end of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) op: usize,
    pub(super) i: u64,
    pub(super) c: u64,
    pub(super) state: State,
}

impl Judge<'_, '_> {
    pub(super) fn lives(&mut self) {
        let ends = self.settled_ends();
        self.no_life_after_an_end(Invariant::I5, &ends);
        let mut all = ends;
        all.extend(self.cancelled_ends());
        self.no_second_end(&all);
        self.attempts_rise();
        self.attempts_are_bounded();
        self.attempts_are_given_back();
        self.crashes_are_counted();
        self.retries_wait();
        self.all_ended();
    }

    fn settled_ends(&self) -> Vec<End> {
        let settled = self.story.writes.iter().filter_map(|write| {
            let state = match write.write.verdict.as_str() {
                "succeed" => State::Succeeded,
                "fail" => State::Failed,
                "cancel" => State::Cancelled,
                _ => return None,
            };
            let ends = matches!(write.kind, Kind::Settle | Kind::Recover);
            let applied = ends && write.answer == Some(Answer::Applied);
            applied.then_some(End { op: write.op, i: write.i, c: write.c, state })
        });
        settled.collect()
    }

    /// Whether an operator may have sent the job round again between an end and `until`.
    fn may_be_requeued(&self, end: &End, until: u64) -> bool {
        let requeues = |action| action == ChangeKind::Requeue || action == ChangeKind::Delete;
        self.story
            .changes
            .iter()
            .any(|change| requeues(change.action) && change.may_fall_between(end.i, until))
    }

    /// A job that has ended is never given out again, nor seen in another state: I5, or I12 if it was cancelled.
    pub(super) fn no_life_after_an_end(&mut self, invariant: Invariant, ends: &[End]) {
        let story = self.story;
        for end in ends {
            for grant in story.grants.iter().filter(|grant| grant.i > end.c) {
                if !self.may_be_requeued(end, grant.c) {
                    let ops: Vec<usize> = grant.ops.iter().copied().chain([end.op]).collect();
                    self.find(invariant, format!("it was given out after it had {}", end.state), ops);
                }
            }
            let sights = story.sights.iter().filter(|sight| sight.i > end.c);
            let looks = sights.map(|sight| (sight.seen.state, sight.c, Some(sight.op)));
            let looks = looks.chain(story.last.map(|last| (last.state, u64::MAX, None)));
            for (state, until, op) in looks {
                if state != end.state && !self.may_be_requeued(end, until) {
                    let why = format!("it was seen {state} after it had {}", end.state);
                    self.find(invariant, why, op.into_iter().chain([end.op]));
                }
            }
        }
    }

    /// I5: one end only.
    fn no_second_end(&mut self, ends: &[End]) {
        for (at, one) in ends.iter().enumerate() {
            for two in &ends[at + 1..] {
                let (first, second) = if one.c <= two.c { (one, two) } else { (two, one) };
                if !self.may_be_requeued(first, second.c) {
                    let why = format!("it ended twice, as {} and as {}", first.state, second.state);
                    self.find(Invariant::I5, why, [first.op, second.op]);
                }
            }
        }
    }

    /// Whether the job may have been deleted between two grants: enqueued again it begins anew.
    pub(super) fn may_be_enqueued_anew(&self, first: &Grant<'_>, second: &Grant<'_>) -> bool {
        let deletes = |change: &Changed| change.action == ChangeKind::Delete;
        self.story.changes.iter().any(|change| deletes(change) && change.may_fall_between(first.i, second.c))
    }

    /// I6: a later grant has a higher attempt, but where one was given back.
    fn attempts_rise(&mut self) {
        let story = self.story;
        for first in &story.grants {
            for second in story.grants.iter().filter(|second| first.c < second.i) {
                let (a, b) = (&first.given.job, &second.given.job);
                let ops: Vec<usize> = first.ops.iter().chain(&second.ops).copied().collect();
                let back = a.generation == b.generation && b.attempt < a.attempt;
                let same = a.generation == b.generation && b.attempt == a.attempt;
                let falls = b.generation < a.generation || back || same && !self.given_back(first, second.c);
                if falls && !self.may_be_enqueued_anew(first, second) {
                    let why = format!("attempt {} was followed by attempt {}", a.attempt, b.attempt);
                    self.find(Invariant::I6, why, ops);
                }
            }
        }
    }

    /// I6: attempts begin with 1, skip none and end with the last one.
    fn attempts_are_bounded(&mut self) {
        let story = self.story;
        let taken = story.puts.iter().filter(|put| put.may_be_taken_in());
        let Some(most) = taken.map(|put| put.put.max_attempts).max() else { return };
        for grant in &story.grants {
            let attempt = grant.given.job.attempt;
            let ops = grant.ops.clone();
            if attempt == 0 || attempt > most {
                self.find(Invariant::I6, format!("attempt {attempt} of {most} was given out"), ops);
                continue;
            }
            let lost = self.model.lost_claims.iter().filter(|lost| lost.i < grant.c).count();
            let known = story.grants.iter().filter(|other| other.i <= grant.c).count();
            if attempt as usize > known + lost {
                let why = format!("attempt {attempt} was given out after {} others", known.saturating_sub(1));
                self.find(Invariant::I6, why, ops);
            }
        }
    }

    /// I8: a job that is to wait is not given before its time.
    fn retries_wait(&mut self) {
        let story = self.story;
        let hours = &self.model.hours;
        let waits = |write: &&Fenced<'_>| {
            matches!(write.kind, Kind::Settle | Kind::Recover)
                && matches!(write.write.verdict.as_str(), "retry" | "release")
                && matches!(write.answer, Some(Answer::Applied | Answer::AlreadyApplied))
                && write.write.span > 0
        };
        let mut early: Vec<(usize, &Grant<'_>)> = Vec::new();
        for write in story.writes.iter().filter(waits) {
            // One that is told that it was there was made by an earlier call.
            let same = |other: &&Fenced<'_>| {
                other.write.token == write.write.token && other.write.verdict == write.write.verdict
            };
            let made = story.writes.iter().filter(same).map(|other| other.i).min().unwrap_or(write.i);
            let due = hours.earliest(made).plus(nanos(write.write.span));
            let hurried = |until: u64| {
                let timed = |action| {
                    matches!(action, ChangeKind::Postpone | ChangeKind::Requeue | ChangeKind::Delete)
                };
                story
                    .changes
                    .iter()
                    .any(|change| timed(change.action) && change.may_fall_between(made, until))
            };
            early.extend(
                story
                    .grants
                    .iter()
                    .filter(|grant| grant.i > write.c && hours.surely_before(hours.latest(grant.c), due))
                    .filter(|grant| !hurried(grant.c))
                    .map(|grant| (write.op, grant)),
            );
        }
        for (op, grant) in early {
            let ops: Vec<usize> = grant.ops.iter().copied().chain([op]).collect();
            self.find(Invariant::I8, "it was given out before its retry's time", ops);
        }
    }

    /// I6: an attempt that was given back is the next one again.
    fn attempts_are_given_back(&mut self) {
        let story = self.story;
        for wait in story.waits().into_iter().filter(|wait| wait.given_back) {
            let Some(next) = wait.next else { continue };
            let lost = self.model.lost_claims.iter().any(|lost| lost.i < next.c);
            let (attempt, wanted) = (next.given.job.attempt, wait.attempt);
            // A claim that began later may have been the first one all the same.
            let released = self.model.ops[wait.op].i;
            let first = |other: &&Grant<'_>| other.c > released && other.i <= next.c;
            let among_them = story.grants.iter().filter(first).any(|other| other.given.job.attempt <= wanted);
            if !lost && !among_them && attempt > wanted {
                let why = format!("attempt {wanted} was given back, and attempt {attempt} was given out");
                self.find(Invariant::I6, why, next.ops.iter().copied().chain([wait.op]));
            }
        }
    }

    /// I6: an attempt that was lost with its worker is counted as such, and no other.
    fn crashes_are_counted(&mut self) {
        let story = self.story;
        if story.is_amended() || story.lives() > 1 {
            return;
        }
        let recoveries = story.writes.iter().filter(|write| write.kind == Kind::Recover);
        let recoveries: Vec<&Fenced<'_>> =
            recoveries.filter(|write| write.answer != Some(Answer::Lost)).collect();
        let sights = story.sights.iter().map(|sight| (sight.seen, sight.i, sight.c, vec![sight.op]));
        let grants = story.grants.iter().map(|grant| (&grant.given.job, grant.i, grant.c, grant.ops.clone()));
        let last = story.last.map(|last| (last, u64::MAX, u64::MAX, Vec::new()));
        for (seen, i, c, ops) in sights.chain(grants).chain(last) {
            let tokens = |certain: bool, until: u64| {
                let counts = recoveries.iter().filter(|write| match certain {
                    true => write.answer == Some(Answer::Applied) && write.c < until,
                    false => write.i < until,
                });
                counts.map(|write| write.write.token).collect::<BTreeSet<_>>().len()
            };
            let (least, most) = (tokens(true, i), tokens(false, c));
            if !(least..=most).contains(&(seen.crashes as usize)) {
                let why = format!("it shows {} crashes, and had {least} to {most}", seen.crashes);
                self.find(Invariant::I6, why, ops.into_iter().chain(recoveries.iter().map(|write| write.op)));
                return;
            }
        }
    }

    /// I8 and I15: a run that was drained leaves no job behind.
    fn all_ended(&mut self) {
        let Some(last) = self.story.last.filter(|_| self.rules.drained) else { return };
        if !last.state.is_terminal() {
            let retried = self.story.writes.iter().any(|write| write.write.verdict == "retry");
            let invariant = if retried { Invariant::I8 } else { Invariant::I15 };
            let ops: Vec<usize> = self.story.grants.iter().flat_map(|grant| grant.ops.clone()).collect();
            self.find(invariant, format!("it is {} when all is over", last.state), ops);
        }
    }
}
