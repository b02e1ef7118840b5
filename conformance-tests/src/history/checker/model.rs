//! The history sorted by job: which calls may have touched it, when, and with what answer.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::backend::{Answer, QueueCounts};
use leasehold_core::{JobId, LeaseToken, QueueName, WorkerId};

use super::hours::{Hours, nanos};
use super::pairing::pair;
use crate::history::event::{
    Asked, Attempt, Call, Change, ChangeKind, Entry, Event, Extended, Fate, Granted, Put, Reply, Seen, What,
    Write,
};
use crate::history::hint::Hint;

/// A call, from its beginning to its answer.
#[derive(Debug)]
pub(crate) struct Op<'h> {
    pub(crate) p: &'h str,
    /// Its number among the calls of its process.
    pub(crate) number: u64,
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
    /// Changes that were asked for and changed nothing, and the answers.
    pub(crate) refusals: Vec<Changed>,
    pub(crate) sights: Vec<Sight<'h>>,
    /// The calls that read its log.
    pub(crate) readings: Vec<usize>,
    pub(crate) runs: Vec<Run<'h>>,
    pub(crate) last: Option<&'h Seen>,
    /// How often the last look showed it.
    pub(crate) shown_last: usize,
    /// The payloads of newcomers that replaced it or may have.
    pub(crate) brought: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Enqueued<'h> {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) c: u64,
    pub(crate) put: &'h Put,
    /// What was answered; none if nothing is known.
    pub(crate) entry: Option<Entry>,
    /// The job that was said to be there: itself, or the holder of its key.
    pub(crate) there: Option<JobId>,
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
    /// Whether a renewal was told that somebody wants the job cancelled.
    pub(crate) cancel: bool,
}

/// An operator's change that took effect or may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) c: u64,
    pub(crate) action: ChangeKind,
    /// Whether it gives the job no time at which it is due (P7).
    pub(crate) parks: bool,
    /// What was answered; none if nothing is known.
    pub(crate) fate: Option<Fate>,
    /// Whether it is a pruning, which removes only what has ended and is not to be kept.
    pub(crate) pruned: bool,
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

/// A claim of which nothing is known: it may have been given anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LostClaim<'h> {
    pub(crate) op: usize,
    pub(crate) i: u64,
    pub(crate) asked: &'h Asked,
}

/// What a watcher was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'h> {
    pub(crate) t: u64,
    pub(crate) p: &'h str,
    /// The number of its call of `watch`.
    pub(crate) number: u64,
    pub(crate) hint: &'h Hint,
}

#[derive(Debug)]
pub(crate) struct Model<'h> {
    pub(crate) hours: Hours,
    pub(crate) ops: Vec<Op<'h>>,
    pub(crate) stories: BTreeMap<JobId, Story<'h>>,
    pub(crate) lost_claims: Vec<LostClaim<'h>>,
    pub(crate) told: Vec<Told<'h>>,
    /// The calls that set each queue.
    pub(crate) settings: BTreeMap<&'h QueueName, Vec<usize>>,
    /// The workers that were stopped, and when.
    pub(crate) stopped: Vec<(WorkerId, u64)>,
    /// When something was last broken on purpose.
    pub(crate) last_fault: u64,
    /// When the last event happened.
    pub(crate) over: u64,
    /// Whether the jobs were looked at when all was over.
    pub(crate) looked_last: bool,
    pub(crate) last_counts: Option<&'h [QueueCounts]>,
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
            told: Vec::new(),
            settings: BTreeMap::new(),
            stopped: Vec::new(),
            last_fault: 0,
            over: events.last().map_or(0, |event| event.t),
            looked_last: false,
            last_counts: None,
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
            (Call::Claim(asked), _) => self.lost_claims.push(LostClaim { op: index, i: op.i, asked }),
            (Call::Renew(writes), reply) => self.sort_writes(index, op, Kind::Renew, writes, reply),
            (Call::Settle(writes), reply) => self.sort_writes(index, op, Kind::Settle, writes, reply),
            (Call::Recover(writes), reply) => self.sort_writes(index, op, Kind::Recover, writes, reply),
            (Call::Log(writes), reply) => self.sort_writes(index, op, Kind::Log, writes, reply),
            (Call::SetQueue(set), _) => self.settings.entry(&set.queue).or_default().push(index),
            (Call::Look, Some(Reply::Look(jobs))) => {
                for seen in jobs {
                    self.story(seen.job).sights.push(Sight { op: index, i: op.i, c: op.c, seen });
                }
            }
            (Call::ReadLog(reading), _) => self.story(reading.job).readings.push(index),
            (Call::Amend(change), Some(Reply::Amend(jobs))) if change.action != ChangeKind::Preview => {
                for (job, fate) in jobs {
                    let changed = op.changed(index, change, Some(*fate));
                    let story = self.story(*job);
                    match fate {
                        Fate::Applied | Fate::Requested => story.changes.push(changed),
                        Fate::AlreadyApplied | Fate::Refused | Fate::NotFound => story.refusals.push(changed),
                    }
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
            let (there, entry) = answers.and_then(|answers| answers.get(at)).copied().unzip();
            let failed = matches!(op.outcome, Outcome::Failed) || entry == Some(Entry::Refused);
            let enqueued = Enqueued { op: op_index, i: op.i, c: op.c, put, entry, there, failed };
            self.story(put.job).puts.push(enqueued);
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
        reply: Option<&Reply>,
    ) {
        for (at, write) in writes.iter().enumerate() {
            let answer = reply.and_then(|reply| reply.answer(at));
            let cancel = matches!(reply, Some(Reply::Renew(answers))
                if matches!(answers.get(at), Some(Extended::Held { cancel: true, .. })));
            let fenced = Fenced { op: index, i: op.i, c: op.c, kind, write, answer, cancel };
            let story = self.story(write.job);
            story.writes.push(fenced);
            // A retry may have sent it to another queue, as an operator would.
            if write.queue.is_some() && answer != Some(Answer::Lost) {
                story.changes.push(op.changed_by(index, ChangeKind::Move));
            }
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
                What::Told(hint) => {
                    self.told.push(Told { t: event.t, p: &event.p, number: event.op, hint });
                }
                What::Stopped { worker } => self.stopped.push((*worker, event.t)),
                What::Fault(_) => self.last_fault = event.t,
                What::LastCounts { counts } => self.last_counts = Some(counts),
                What::Last(seen) => {
                    last += 1;
                    let story = self.story(seen.job);
                    story.last = Some(seen);
                    story.shown_last += 1;
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
        self.date_back_repeated_claims();
    }

    /// A claim that was lost and repeated may have been given its jobs the first time.
    fn date_back_repeated_claims(&mut self) {
        let mut first: BTreeMap<_, u64> = BTreeMap::new();
        for lost in &self.lost_claims {
            let earliest = first.entry(lost.asked.claim).or_insert(lost.i);
            *earliest = lost.i.min(*earliest);
        }
        for (job, story) in &mut self.stories {
            for grant in &mut story.grants {
                if let Some(i) = first.get(&grant.given.token.claim(*job)) {
                    grant.i = grant.i.min(*i);
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
            match op.call {
                Call::Amend(change) if unknown && change.action != ChangeKind::Preview => {
                    broad.push((op.changed(index, change, None), change.jobs.as_ref()));
                }
                Call::Prune if !matches!(op.outcome, Outcome::Failed | Outcome::Ok(Reply::Prune(0))) => {
                    let delete = op.changed_by(index, ChangeKind::Delete);
                    broad.push((Changed { pruned: true, ..delete }, None));
                }
                _ => {}
            }
        }
        self.spread_replacements();
        for (changed, jobs) in broad {
            let named: Option<BTreeSet<&JobId>> = jobs.map(|jobs| jobs.iter().collect());
            for (job, story) in &mut self.stories {
                if named.as_ref().is_none_or(|named| named.contains(job)) {
                    story.changes.push(changed);
                }
            }
        }
        self.spread_ends_for_room();
    }

    /// A newcomer that replaced the holder of its key changed that one's payload, priority and due time; one that was
    /// repeated may have done so before, and one of which nothing is known may have done it to any job with its key.
    fn spread_replacements(&mut self) {
        let replaces = |put: &&Enqueued<'_>| {
            put.put.unique.as_ref().is_some_and(|unique| !unique.on_conflict.is_keep())
                && matches!(put.entry, None | Some(Entry::Replaced))
                && !put.failed
        };
        let newcomers = self.stories.values().flat_map(|story| story.puts.iter().filter(replaces));
        let newcomers: Vec<Enqueued<'h>> = newcomers.copied().collect();
        for newcomer in newcomers {
            let key = |put: &Put| put.unique.as_ref().map(|unique| unique.key.clone());
            for (job, story) in &mut self.stories {
                let may_be_meant = match newcomer.there {
                    Some(there) => there == *job,
                    None => story.puts.iter().any(|put| key(put.put) == key(newcomer.put)),
                };
                if may_be_meant {
                    let changes = [ChangeKind::Postpone, ChangeKind::Reprioritise];
                    let (op, parks) = (&self.ops[newcomer.op], newcomer.put.is_parked());
                    let changed = |action| Changed { parks, ..op.changed_by(newcomer.op, action) };
                    story.changes.extend(changes.map(changed));
                    story.brought.insert(newcomer.put.payload);
                }
            }
        }
    }
}

impl Changed {
    /// Whether it may have taken effect between these moments.
    pub(crate) fn may_fall_between(&self, from: u64, until: u64) -> bool {
        from < self.c && self.i < until
    }
}

impl Op<'_> {
    fn changed(&self, op: usize, change: &Change, fate: Option<Fate>) -> Changed {
        Changed { parks: change.parks, fate, ..self.changed_by(op, change.action) }
    }

    /// What else changed a job so, or may have.
    pub(super) fn changed_by(&self, op: usize, action: ChangeKind) -> Changed {
        Changed { op, i: self.i, c: self.c, action, parks: false, fate: None, pruned: false }
    }
}

impl Model<'_> {
    /// Whether a claim of which nothing is known may have been given this lease.
    pub(crate) fn may_be_given(&self, job: JobId, token: LeaseToken) -> bool {
        self.lost_claims.iter().any(|lost| lost.asked.claim == token.claim(job))
    }

    /// Takes a settlement that was there already, and that no recorded call had made, for one that its own call
    /// had made a moment before.
    pub(crate) fn take_repetitions_for_first_calls(&mut self) {
        for story in self.stories.values_mut() {
            for at in 0..story.writes.len() {
                let write = &story.writes[at];
                let answer = match write.answer {
                    Some(Answer::AlreadyApplied) if !story.is_made(write) => Some(Answer::Applied),
                    // The first of two may have ended the lease, and the second came when that was forgotten.
                    Some(Answer::Lost) if story.is_granted_during(write) => None,
                    _ => continue,
                };
                story.writes[at].answer = answer;
            }
        }
    }
}

impl<'h> Story<'h> {
    /// The job as it was taken in, as far as that is known.
    pub(crate) fn taken_in(&self) -> Option<&'h Put> {
        let created = self.puts.iter().find(|put| put.entry == Some(Entry::Created));
        let taken = created.or_else(|| self.puts.iter().find(|put| put.may_be_taken_in()));
        taken.map(|put| put.put)
    }

    /// How often it was taken in for certain.
    pub(crate) fn lives(&self) -> usize {
        self.puts.iter().filter(|put| put.entry == Some(Entry::Created)).count()
    }
}

impl Enqueued<'_> {
    /// Whether it was acknowledged as being there.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.entry, Some(Entry::Created | Entry::Existing))
    }

    pub(crate) fn may_be_taken_in(&self) -> bool {
        !self.failed && !matches!(self.entry, Some(Entry::Held | Entry::Replaced))
    }
}

impl Story<'_> {
    /// Whether the job was given to somebody else while a settlement was under way.
    fn is_granted_during(&self, write: &Fenced<'_>) -> bool {
        let settles = matches!(write.kind, Kind::Settle | Kind::Recover);
        let other = |grant: &Grant<'_>| grant.given.token != write.write.token;
        let during = |grant: &Grant<'_>| write.i < grant.c && grant.i < write.c;
        settles && self.grants.iter().any(|grant| other(grant) && during(grant))
    }

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
