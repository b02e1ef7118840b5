//! I3 and I4: one holder at a time, and no write but the holder's.

use leasehold_core::backend::Answer;

use super::Judge;
use super::model::{Changed, Fenced, Grant, Kind};
use crate::history::event::{Call, ChangeKind};
use crate::history::verdict::Invariant;

impl Judge<'_, '_> {
    pub(super) fn fences(&mut self) {
        self.no_second_grant_while_leased();
        self.no_grant_twice();
        self.no_recovery_while_leased();
        self.no_stale_write();
        self.no_honest_holder_refused();
        self.no_made_up_repetition();
    }

    /// I3: nobody is given a job that somebody else certainly holds.
    fn no_second_grant_while_leased(&mut self) {
        let story = self.story;
        for held in &story.grants {
            let let_go = story.let_go(held);
            for other in story.grants.iter().filter(|other| other.given.token != held.given.token) {
                let end = self.model.earliest_end(story, held, other.i);
                let hours = &self.model.hours;
                let within = hours.surely_within(hours.latest(other.c), end) && other.c < let_go;
                if held.c < other.i && within {
                    let ops: Vec<usize> = held.ops.iter().chain(&other.ops).copied().collect();
                    let renewals = story.under(held).filter(|w| w.kind == Kind::Renew).map(|w| w.op);
                    let ops: Vec<usize> = ops.into_iter().chain(renewals).collect();
                    self.find(Invariant::I3, "it was given out while somebody held it", ops);
                }
            }
        }
    }

    /// I3: an attempt is granted once, and its token is of the claim that was given it.
    fn no_grant_twice(&mut self) {
        let story = self.story;
        for (at, one) in story.grants.iter().enumerate() {
            let claim = one.given.token.claim(self.job);
            let asked = |op: &usize| match self.model.ops[*op].call {
                Call::Claim(asked) => asked.claim == claim,
                _ => false,
            };
            if !one.ops.iter().all(asked) {
                self.find(Invariant::I3, "its token is not the one that the claim named", one.ops.clone());
            }
            for two in &story.grants[at + 1..] {
                let (first, second) = if one.c <= two.c { (one, two) } else { (two, one) };
                let same = first.given.job.attempt == second.given.job.attempt
                    && first.given.job.generation == second.given.job.generation;
                let ops: Vec<usize> = first.ops.iter().chain(&second.ops).copied().collect();
                if first.given.token == second.given.token {
                    self.find(Invariant::I3, "one token was given for two attempts", ops);
                } else if same
                    && !self.given_back(first, second.c)
                    && !self.given_back(second, first.c)
                    && !self.may_be_enqueued_anew(first, second)
                {
                    let why = format!("attempt {} was given out twice", first.given.job.attempt);
                    self.find(Invariant::I3, why, ops);
                }
            }
        }
    }

    /// Whether the attempt of a grant may have been given back by then.
    pub(super) fn given_back(&self, grant: &Grant<'_>, until: u64) -> bool {
        self.story.under(grant).any(|write| {
            write.kind == Kind::Settle
                && write.write.verdict == "release"
                && write.answer != Some(Answer::Lost)
                && write.i < until
        })
    }

    /// I3: nobody takes back a lease that is certainly valid.
    fn no_recovery_while_leased(&mut self) {
        let story = self.story;
        let applied =
            |write: &&Fenced<'_>| write.kind == Kind::Recover && write.answer == Some(Answer::Applied);
        for recovery in story.writes.iter().filter(applied) {
            let lease = story.grants.iter().find(|grant| grant.given.token == recovery.write.token);
            let Some(lease) = lease.filter(|grant| grant.c < recovery.i) else { continue };
            let end = self.model.earliest_end(story, lease, recovery.i);
            let hours = &self.model.hours;
            if hours.surely_within(hours.latest(recovery.c), end) {
                let mut ops = lease.ops.clone();
                ops.extend(story.under(lease).map(|write| write.op));
                self.find(Invariant::I3, "it was taken back from a holder whose lease was valid", ops);
            }
        }
    }

    /// I4: no write is accepted but under the lease that the job runs under.
    fn no_stale_write(&mut self) {
        let story = self.story;
        for write in story.writes.iter().filter(|write| write.answer == Some(Answer::Applied)) {
            let token = write.write.token;
            let grant = story.grants.iter().find(|grant| grant.given.token == token);
            if grant.is_none() && !self.model.may_be_given(self.job, token) {
                self.find(
                    Invariant::I4,
                    "a write under a token was accepted that nobody was given",
                    [write.op],
                );
                continue;
            }
            let ended = |other: &&Fenced<'_>| {
                matches!(other.kind, Kind::Settle | Kind::Recover)
                    && other.write.token == token
                    && other.answer == Some(Answer::Applied)
                    && other.c < write.i
            };
            if let Some(end) = story.writes.iter().find(ended) {
                let ops = [write.op, end.op];
                self.find(Invariant::I4, "a write was accepted after its lease had been ended", ops);
                continue;
            }
            let Some(grant) = grant else { continue };
            let later = story.grants.iter().find(|later| grant.c < later.i && later.c < write.i);
            if let Some(later) = later {
                let ops: Vec<usize> = [write.op].into_iter().chain(later.ops.iter().copied()).collect();
                let ops: Vec<usize> = ops.into_iter().chain(grant.ops.iter().copied()).collect();
                self.find(Invariant::I4, "a write of a former holder was accepted", ops);
            }
        }
    }

    /// I4, the other way round: a holder is refused only if its lease was ended.
    fn no_honest_holder_refused(&mut self) {
        let story = self.story;
        let lost = |write: &&Fenced<'_>| write.answer == Some(Answer::Lost) && write.kind != Kind::Recover;
        for write in story.writes.iter().filter(lost) {
            let token = write.write.token;
            let grant = story.grants.iter().find(|grant| grant.given.token == token);
            let Some(grant) = grant.filter(|grant| grant.c < write.i) else { continue };
            let ends = |other: &Fenced<'_>| {
                matches!(other.kind, Kind::Settle | Kind::Recover)
                    && other.op != write.op
                    && other.write.token == token
                    && other.answer != Some(Answer::Lost)
                    && other.i < write.c
            };
            let within_batch = |other: &Fenced<'_>| {
                other.op == write.op && other.write.token == token && other.answer == Some(Answer::Applied)
            };
            let ended = story.writes.iter().any(|other| ends(other) || within_batch(other));
            let deletes = |change: &Changed| change.action == ChangeKind::Delete && !change.pruned;
            let deleted = story.changes.iter().any(|change| deletes(change) && change.i < write.c);
            if !ended && !deleted {
                let ops: Vec<usize> = grant.ops.iter().copied().chain([write.op]).collect();
                self.find(Invariant::I4, "its holder was refused, and nobody had ended the lease", ops);
            } else if self.is_forgotten(write) {
                self.find(
                    Invariant::I4,
                    "a settlement that had been applied was lost when repeated",
                    [write.op],
                );
            }
        }
    }

    /// Whether a settlement is answered as lost although it is the latest of its job.
    fn is_forgotten(&self, write: &Fenced<'_>) -> bool {
        let same = |other: &Fenced<'_>| {
            other.kind == Kind::Settle
                && write.kind == Kind::Settle
                && other.write == write.write
                && other.answer == Some(Answer::Applied)
                && other.c < write.i
        };
        let another = |other: &Fenced<'_>| {
            matches!(other.kind, Kind::Settle | Kind::Recover)
                && other.write.token != write.write.token
                && other.answer != Some(Answer::Lost)
                && other.i < write.c
        };
        let writes = &self.story.writes;
        let deleted = self.story.changes.iter().any(|change| change.action == ChangeKind::Delete);
        writes.iter().any(same) && !writes.iter().any(another) && !deleted
    }

    /// I4: a settlement is said to be there already only if somebody made it.
    fn no_made_up_repetition(&mut self) {
        let story = self.story;
        let repeated = |write: &&Fenced<'_>| {
            matches!(write.kind, Kind::Settle | Kind::Recover) && write.answer == Some(Answer::AlreadyApplied)
        };
        for write in story.writes.iter().filter(repeated) {
            if !story.is_made(write) {
                self.find(
                    Invariant::I4,
                    "a settlement was said to be there that nobody had made",
                    [write.op],
                );
            }
        }
    }
}
