//! The history sorted by job: which calls may have touched it, when, and with what answer.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::backend::Answer;
use leasehold_core::{ClaimId, JobId, LeaseToken};

use super::hours::{Hours, nanos};
use crate::history::event::{
    Attempt, Call, ChangeKind, Entry, Event, Granted, Put, Reply, Seen, What, Write,
};

/// A call, from its beginning to its answer.
#[derive(Debug)]
pub(crate) struct Op<'h> {
    pub(crate) p: &'h str,
    pub(crate) call: &'h Call,
    /// When it began; it took effect no sooner.
    pub(crate) i: u64,
    /// When its answer came; it took effect no later. `u64::MAX` if nothing is known of it.
    pub(crate) c: u64,
    pub(crate) outcome: Outcome<'h>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'h> {
    Ok(&'h Reply),
    Failed,
    Unknown,
}

/// All that is known of one job.
#[derive(Debug, Default)]
pub(crate) struct Story<'h> {
    pub(crate) puts: Vec<Enqueued<'h>>,
    pub(crate) grants: Vec<Grant<'h>>,
    pub(crate) writes: Vec<Fenced<'h>>,
    pub(crate) changes: Vec<Changed>,
    pub(crate) sights: Vec<Sight<'h>>,
    pub(crate) runs: Vec<Run<'h>>,
    pub(crate) last: Option<&'h Seen>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Enqueued<'h> {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) put: &'h Put,
    /// What was answered; none if nothing is known.
    pub(crate) entry: Option<Entry>,
    pub(crate) failed: bool,
}

/// A lease that was given out: one, however often its claim was repeated.
#[derive(Debug)]
pub(crate) struct Grant<'h> {
    pub(crate) given: &'h Granted,
    pub(crate) i: u64,
    pub(crate) c: u64,
    /// The shortest lease that was told of it, in nanoseconds.
    pub(crate) lease: i64,
    /// The calls that were given it.
    pub(crate) ops: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Renew,
    Settle,
    Recover,
    Log,
}

/// A write under a lease that was not refused outright.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fenced<'h> {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) c: u64,
    pub(crate) kind: Kind,
    pub(crate) write: &'h Write,
    /// What was answered; none if nothing is known.
    pub(crate) answer: Option<Answer>,
}

/// An operator's change that took effect or may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) c: u64,
    pub(crate) action: ChangeKind,
    pub(crate) certain: bool,
}

/// A look at the job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'h> {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) c: u64,
    pub(crate) seen: &'h Seen,
}

/// The beginning of a handler's run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'h> {
    pub(crate) t: u64,
    pub(crate) p: &'h str,
    pub(crate) token: LeaseToken,
}

#[derive(Debug)]
pub(crate) struct Model<'h> {
    pub(crate) hours: Hours,
    pub(crate) ops: Vec<Op<'h>>,
    pub(crate) stories: BTreeMap<JobId, Story<'h>>,
    /// Claims of which nothing is known: each may have been given anything.
    pub(crate) lost_claims: Vec<(ClaimId, u64)>,
    /// Whether the jobs were looked at when all was over.
    pub(crate) looked_last: bool,
    /// What is wrong with the history itself.
    pub(crate) harness: Vec<String>,
}

impl<'h> Model<'h> {
    pub(crate) fn read(events: &'h [Event]) -> Self {
        let mut harness = Vec::new();
        let hours = Hours::read(events, &mut harness);
        let ops = pair(events, &mut harness);
        let mut model = Self {
            hours,
            ops: Vec::new(),
            stories: BTreeMap::new(),
            lost_claims: Vec::new(),
            looked_last: false,
            harness,
        };
        for (index, op) in ops.iter().enumerate() {
            model.sort_op(index, op);
        }
        model.ops = ops;
        model.sort_rest(events);
        model.spread_broad_changes();
        model
    }

    fn story(&mut self, job: JobId) -> &mut Story<'h> {
        self.stories.entry(job).or_default()
    }

    fn sort_op(&mut self, index: usize, op: &Op<'h>) {
        let reply = match op.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Failed | Outcome::Unknown => None,
        };
        if matches!(op.outcome, Outcome::Failed) && !matches!(op.call, Call::Enqueue(_)) {
            return;
        }
        match (op.call, reply) {
            (Call::Enqueue(puts), reply) => self.sort_puts(index, op, puts, reply),
            (Call::Claim(_), Some(Reply::Claim(jobs))) => self.sort_grants(index, op, jobs),
            (Call::Claim(asked), _) => self.lost_claims.push((asked.claim, op.i)),
            (Call::Renew(w), Some(Reply::Renew(a))) => self.sort_writes(index, op, Kind::Renew, w, Some(a)),
            (Call::Renew(w), _) => self.sort_writes(index, op, Kind::Renew, w, None),
            (Call::Settle(w), Some(Reply::Settle(a))) => {
                self.sort_writes(index, op, Kind::Settle, w, Some(a));
            }
            (Call::Settle(w), _) => self.sort_writes(index, op, Kind::Settle, w, None),
            (Call::Recover(w), Some(Reply::Recover(a))) => {
                self.sort_writes(index, op, Kind::Recover, w, Some(a));
            }
            (Call::Recover(w), _) => self.sort_writes(index, op, Kind::Recover, w, None),
            (Call::Log(w), Some(Reply::Log(a))) => self.sort_writes(index, op, Kind::Log, w, Some(a)),
            (Call::Log(w), _) => self.sort_writes(index, op, Kind::Log, w, None),
            (Call::Look, Some(Reply::Look(jobs))) => {
                for seen in jobs {
                    self.story(seen.job).sights.push(Sight { op: index, i: op.i, c: op.c, seen });
                }
            }
            (Call::Amend(change), Some(Reply::Amend(jobs))) => {
                let changed = Changed { op: index, i: op.i, c: op.c, action: change.action, certain: true };
                for job in jobs.iter().filter(|_| change.action != ChangeKind::Preview) {
                    self.story(*job).changes.push(changed);
                }
            }
            _ => {}
        }
    }

    fn sort_puts(&mut self, op_index: usize, op: &Op<'h>, puts: &'h [Put], reply: Option<&'h Reply>) {
        let answers = match reply {
            Some(Reply::Enqueue(answers)) => Some(answers),
            _ => None,
        };
        for (at, put) in puts.iter().enumerate() {
            let entry = answers.and_then(|answers| answers.get(at)).map(|(_, entry)| *entry);
            let failed = matches!(op.outcome, Outcome::Failed) || entry == Some(Entry::Refused);
            self.story(put.job).puts.push(Enqueued { op: op_index, i: op.i, put, entry, failed });
        }
    }

    fn sort_grants(&mut self, index: usize, op: &Op<'h>, jobs: &'h [Granted]) {
        for given in jobs {
            let lease = nanos(given.lease);
            let story = self.story(given.job.job);
            match story.grants.iter_mut().find(|grant| grant.is_again(given)) {
                Some(grant) => {
                    grant.i = grant.i.min(op.i);
                    grant.c = grant.c.min(op.c);
                    grant.lease = grant.lease.min(lease);
                    grant.ops.push(index);
                }
                None => story.grants.push(Grant { given, i: op.i, c: op.c, lease, ops: vec![index] }),
            }
        }
    }

    fn sort_writes(
        &mut self,
        index: usize,
        op: &Op<'h>,
        kind: Kind,
        writes: &'h [Write],
        answers: Option<&[Answer]>,
    ) {
        for (at, write) in writes.iter().enumerate() {
            let answer = answers.and_then(|answers| answers.get(at)).copied();
            let fenced = Fenced { op: index, i: op.i, c: op.c, kind, write, answer };
            self.story(write.job).writes.push(fenced);
        }
    }

    /// What is in the history and is no call.
    fn sort_rest(&mut self, events: &'h [Event]) {
        let mut last = 0;
        for event in events {
            match &event.what {
                What::Start(Attempt { job, token }) => {
                    let run = Run { t: event.t, p: &event.p, token: *token };
                    self.story(*job).runs.push(run);
                }
                What::Last(seen) => {
                    last += 1;
                    self.story(seen.job).last = Some(seen);
                }
                What::LastOfAll { jobs } => {
                    self.looked_last = true;
                    if *jobs != last {
                        self.harness.push(format!("the last look saw {jobs} jobs and recorded {last}"));
                    }
                }
                _ => {}
            }
        }
        // A claim that was lost and repeated may have been given its jobs the first time.
        for (claim, i) in self.lost_claims.clone() {
            for (job, story) in &mut self.stories {
                let token = claim.token(*job);
                for grant in story.grants.iter_mut().filter(|grant| grant.given.token == token) {
                    grant.i = grant.i.min(i);
                }
            }
        }
    }

    /// Changes by filter and by id of which nothing is known, and prunings, may have touched any job that they
    /// name or that there is.
    fn spread_broad_changes(&mut self) {
        let mut broad = Vec::new();
        for (index, op) in self.ops.iter().enumerate() {
            let unknown = matches!(op.outcome, Outcome::Unknown);
            let changed = |action| Changed { op: index, i: op.i, c: op.c, action, certain: false };
            match op.call {
                Call::Amend(change) if unknown && change.action != ChangeKind::Preview => {
                    broad.push((changed(change.action), change.jobs.as_ref()));
                }
                Call::Prune if !matches!(op.outcome, Outcome::Failed | Outcome::Ok(Reply::Prune(0))) => {
                    broad.push((changed(ChangeKind::Delete), None));
                }
                _ => {}
            }
        }
        for (changed, jobs) in broad {
            let named: Option<BTreeSet<&JobId>> = jobs.map(|jobs| jobs.iter().collect());
            for (job, story) in &mut self.stories {
                if named.as_ref().is_none_or(|named| named.contains(job)) {
                    story.changes.push(changed);
                }
            }
        }
    }
}

impl Model<'_> {
    /// Takes a settlement that was there already, and that no recorded call had made, for one that its own call
    /// had made a moment before.
    pub(crate) fn take_repetitions_for_first_calls(&mut self) {
        for story in self.stories.values_mut() {
            for at in 0..story.writes.len() {
                if story.writes[at].answer == Some(Answer::AlreadyApplied)
                    && !story.is_made(&story.writes[at])
                {
                    story.writes[at].answer = Some(Answer::Applied);
                }
            }
        }
    }
}

impl Story<'_> {
    /// Whether some call made, or may have made, the settlement that this one is told was there.
    pub(crate) fn is_made(&self, repeated: &Fenced<'_>) -> bool {
        self.writes.iter().any(|other| {
            other.kind == repeated.kind
                && other.write.token == repeated.write.token
                && other.write.verdict == repeated.write.verdict
                && matches!(other.answer, None | Some(Answer::Applied))
                && other.i < repeated.c
        })
    }
}

impl Grant<'_> {
    /// Whether this is the same lease, told once more.
    fn is_again(&self, other: &Granted) -> bool {
        let (mine, theirs) = (&self.given.job, &other.job);
        self.given.token == other.token
            && mine.attempt == theirs.attempt
            && mine.generation == theirs.generation
    }
}

/// Joins the beginnings of calls with their ends.
fn pair<'h>(events: &'h [Event], harness: &mut Vec<String>) -> Vec<Op<'h>> {
    let mut ops: Vec<Op<'h>> = Vec::new();
    let mut open: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut known: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut killed: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        let key = (event.p.as_str(), event.op);
        if killed.contains(key.0) {
            harness.push(format!("{} goes on after it was killed", event.p));
        }
        let outcome = match &event.what {
            What::Invoke { call } => {
                if !known.insert(key) {
                    harness.push(format!("{} has two calls of the number {}", event.p, event.op));
                }
                open.insert(key, ops.len());
                let op = Op { p: key.0, call, i: event.t, c: u64::MAX, outcome: Outcome::Unknown };
                ops.push(op);
                continue;
            }
            What::Ok { reply } => Outcome::Ok(reply),
            What::Fail { .. } => Outcome::Failed,
            What::Info { .. } => Outcome::Unknown,
            What::Fault(fault) => {
                killed.extend(fault.kills.as_deref());
                continue;
            }
            _ => continue,
        };
        match open.remove(&key) {
            Some(index) => {
                let known = !matches!(outcome, Outcome::Unknown);
                ops[index].c = if known { event.t } else { u64::MAX };
                ops[index].outcome = outcome;
            }
            None => harness.push(format!("{} has an answer to no call, number {}", event.p, event.op)),
        }
    }
    ops
}
