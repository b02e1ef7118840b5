//! The second opinion: whether the calls for one job can be put in an order, each at some moment between its
//! beginning and its answer, in which a register gives the answers that were given.
//!
//! This is the search of Wing and Gong with the memory of Lowe. Jobs are independent, and a history is
//! linearizable if it is so for each of them, so each is searched by itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use leasehold_core::{ClaimId, LeaseToken, State};

use super::Judge;
use super::model::{Changed, Enqueued, Fenced, Grant, Kind};
use super::register::{Mark, Register, Step};
use crate::history::event::{Entry, Fate};
use crate::history::verdict::Invariant;

/// A job with more steps is not searched.
const STEPS: usize = u128::BITS as usize;
/// How many states of one job are looked at.
const STATES: usize = 20_000;

/// Whether there is a second opinion on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opinion {
    Given,
    TooLong,
}

/// A step and when it can have been taken.
#[derive(Debug, Clone, Copy)]
struct Timed<'h> {
    /// Its call; none for the last look.
    op: Option<usize>,
    i: u64,
    /// It was taken by then; none if it may be taken at any later time, or never.
    c: Option<u64>,
    step: Step<'h>,
}

/// A search under way.
struct Search<'s, 'h> {
    steps: &'s [Timed<'h>],
    seen: HashSet<(u128, Register<'h>)>,
    /// The steps that were left where it got furthest, and could have been next.
    stuck: (u32, Vec<usize>),
    spent: bool,
}

impl<'h> Search<'_, 'h> {
    /// Whether the steps that are left can be taken from here.
    fn reach(&mut self, done: u128, register: &Register<'h>) -> bool {
        let left = |at: &usize| done & (1 << at) == 0;
        let all = 0..self.steps.len();
        let Some(first_answer) = all.clone().filter(left).filter_map(|at| self.steps[at].c).min() else {
            return true;
        };
        if self.seen.len() >= STATES {
            self.spent = true;
            return false;
        }
        if !self.seen.insert((done, register.clone())) {
            return false;
        }
        let next: Vec<usize> = all.filter(left).filter(|at| self.steps[*at].i <= first_answer).collect();
        if done.count_ones() >= self.stuck.0 {
            let stuck = next.iter().copied().filter(|at| self.steps[*at].c.is_some()).collect();
            self.stuck = (done.count_ones(), stuck);
        }
        let after = |at: usize| register.after(&self.steps[at].step).map(|after| (at, after));
        let mut after: Vec<(usize, Register<'h>)> = next.into_iter().filter_map(after).collect();
        // What changes nothing can as well be taken at once.
        if let Some(at) =
            after.iter().position(|(at, after)| after == register && self.steps[*at].c.is_some())
        {
            after = vec![after.swap_remove(at)];
        }
        after.retain(|(at, after)| after != register || self.steps[*at].c.is_some());
        after.into_iter().any(|(at, after)| self.reach(done | (1 << at), &after))
    }
}

impl<'h> Judge<'_, 'h> {
    /// Searches an order for the calls of this job.
    pub(super) fn second_opinion(&mut self) -> Opinion {
        let mut steps = self.steps();
        steps.sort_by_key(|step| (step.i, step.c));
        if steps.len() > STEPS {
            return Opinion::TooLong;
        }
        let most = self.story.taken_in().map_or(u32::MAX, |put| put.max_attempts);
        let mut search = Search { steps: &steps, seen: HashSet::new(), stuck: (0, Vec::new()), spent: false };
        if search.reach(0, &Register::absent(most)) {
            return Opinion::Given;
        }
        if search.spent {
            return Opinion::TooLong;
        }
        let stuck: Vec<usize> = search.stuck.1.iter().filter_map(|at| steps[*at].op).collect();
        let why =
            "there is no order of its calls in which their answers are right; the marked ones fit nowhere";
        self.find(Invariant::Linear, why, stuck);
        Opinion::Given
    }

    fn steps(&self) -> Vec<Timed<'h>> {
        let mut steps = Vec::new();
        for put in self.story.puts.iter().filter(|put| !put.failed) {
            steps.push(enqueuing(put));
            // Where a call may have been made twice, the first may have done what the second found done.
            if self.rules.repeats_inside && put.entry == Some(Entry::Existing) {
                steps.push(Timed {
                    c: None,
                    step: Step::Enqueue(None, put.put.is_parked()),
                    ..enqueuing(put)
                });
            }
        }
        for grant in &self.story.grants {
            steps.extend(self.claiming(grant));
        }
        steps.extend(self.lost_claims());
        for write in &self.story.writes {
            steps.extend(writing(write));
            if self.rules.repeats_inside && write.answer.is_some() {
                let again = Fenced { answer: None, c: u64::MAX, ..*write };
                steps.extend(writing(&again));
            }
        }
        for change in self.story.changes.iter().chain(&self.story.refusals) {
            steps.extend(self.amending(change));
            if self.rules.repeats_inside && change.fate.is_some() {
                steps.extend(self.amending(&Changed { fate: None, ..*change }));
            }
        }
        for sight in &self.story.sights {
            let step = Step::See(sight.seen.into());
            steps.push(Timed { op: Some(sight.op), i: sight.i, c: Some(sight.c), step });
        }
        steps.extend(self.story.last.map(|seen| {
            let step = Step::See(seen.into());
            Timed { op: None, i: u64::MAX, c: Some(u64::MAX), step }
        }));
        steps
    }

    fn claiming(&self, grant: &Grant<'h>) -> Vec<Timed<'h>> {
        let told = Some((grant.given.job.attempt, grant.given.job.generation));
        let step = Step::Claim(grant.given.token, told);
        let ops = grant.ops.iter().map(|&op| (op, &self.model.ops[op]));
        ops.map(|(index, op)| Timed { op: Some(index), i: op.i, c: Some(op.c), step }).collect()
    }

    /// The claims of which nothing is known and that were given this job, or may still hold it. Whatever takes it
    /// back from one of them names its token.
    fn lost_claims(&self) -> Vec<Timed<'h>> {
        let story = self.story;
        let named: BTreeSet<LeaseToken> = story.writes.iter().map(|write| write.write.token).collect();
        let runs = |state| state == State::Running;
        let seen_running = story.sights.iter().any(|sight| runs(sight.seen.state))
            || story.last.is_some_and(|last| runs(last.state));
        let mut claims: BTreeMap<ClaimId, Timed<'h>> = BTreeMap::new();
        for lost in &self.model.lost_claims {
            let token = lost.asked.claim.token(self.job);
            if named.contains(&token) || seen_running {
                let step = Timed { op: Some(lost.op), i: lost.i, c: None, step: Step::Claim(token, None) };
                claims.entry(lost.asked.claim).or_insert(step);
            }
        }
        claims.into_values().collect()
    }

    fn amending(&self, change: &Changed) -> Option<Timed<'h>> {
        let c = change.fate.map(|_| change.c);
        let step = match change.pruned {
            // What is there in the end, and was taken in but once, was not removed.
            true if self.story.last.is_some() && self.story.lives() < 2 => return None,
            true => Step::Prune,
            false => Step::Amend(change.action, change.parks, change.fate),
        };
        let timed = Timed { op: Some(change.op), i: change.i, c, step };
        (change.fate != Some(Fate::Refused) || !self.rules.repeats_inside).then_some(timed)
    }
}

fn enqueuing<'h>(put: &Enqueued<'h>) -> Timed<'h> {
    let c = put.entry.map(|_| put.c);
    Timed { op: Some(put.op), i: put.i, c, step: Step::Enqueue(put.entry, put.put.is_parked()) }
}

fn writing<'h>(write: &Fenced<'h>) -> Option<Timed<'h>> {
    let token = write.write.token;
    let step = match (write.kind, write.answer) {
        (Kind::Renew | Kind::Log, None) => return None,
        (Kind::Renew | Kind::Log, Some(answer)) => Step::Hold(write.kind, token, answer, write.cancel),
        (Kind::Settle | Kind::Recover, answer) => {
            let recovered = write.kind == Kind::Recover;
            Step::Settle(Mark { token, verdict: &write.write.verdict, recovered }, answer)
        }
    };
    Some(Timed { op: Some(write.op), i: write.i, c: write.answer.map(|_| write.c), step })
}
