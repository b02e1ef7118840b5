//! I1, I2, I7 and I9: what goes in comes out, as it went in, when it may, and is run no more often.

use std::collections::BTreeSet;

use leasehold_core::Keep;
use leasehold_core::backend::Answer;

use super::hours::{Hour, nanos, nanos_of};
use super::model::{Changed, Enqueued, Fenced, Kind, Outcome, Run, Story};
use super::{Judge, World};
use crate::history::event::{Call, ChangeKind, DueAs, Entry, Fate, Reply, Seen};
use crate::history::verdict::{About, Invariant};

impl Judge<'_, '_> {
    pub(super) fn accounts(&mut self) {
        self.no_lost_enqueue();
        self.no_invention();
        self.nothing_that_was_not_asked_for();
        self.no_work_without_a_claim();
        self.no_claim_before_its_time();
    }

    /// I1: what was acknowledged is there at the end, unless it was deleted or pruned; what failed is nowhere.
    fn no_lost_enqueue(&mut self) {
        let story = self.story;
        let acknowledged: Vec<&Enqueued<'_>> = story.puts.iter().filter(|put| put.is_there()).collect();
        let ops: Vec<usize> = acknowledged.iter().map(|put| put.op).collect();
        if story.shown_last > 1 {
            self.find(Invariant::I1, format!("it is there {} times", story.shown_last), ops.clone());
        }
        let lost = acknowledged.iter().any(|put| !self.may_be_removed(put.i, u64::MAX));
        if self.model.looked_last && story.last.is_none() && lost {
            self.find(Invariant::I1, "it was acknowledged and is gone at the end", ops);
        }
        let created = acknowledged.iter().filter(|put| put.entry == Some(Entry::Created));
        let mut created: Vec<&&Enqueued<'_>> = created.collect();
        created.sort_by_key(|put| put.c);
        if let Some(pair) = created.windows(2).find(|pair| !self.may_be_removed(pair[0].i, pair[1].c)) {
            self.find(Invariant::I1, "two calls were told that they created it", [pair[0].op, pair[1].op]);
        }
        let all_failed = !story.puts.is_empty() && story.puts.iter().all(|put| put.failed);
        if all_failed && !(story.grants.is_empty() && story.sights.is_empty() && story.last.is_none()) {
            let ops: Vec<usize> = story.puts.iter().map(|put| put.op).collect();
            self.find(Invariant::I1, "its enqueue failed for certain, and it is there", ops);
        }
    }

    /// Whether the job may have been deleted or pruned between these moments.
    fn may_be_removed(&self, from: u64, until: u64) -> bool {
        self.story.changes.iter().any(|change| {
            change.action == ChangeKind::Delete
                && change.may_fall_between(from, until)
                && (!change.pruned || self.may_be_over(change))
        })
    }

    /// Whether the job may have ended so long before a pruning that this may remove it.
    fn may_be_over(&self, pruning: &Changed) -> bool {
        let story = self.story;
        let retention = story.taken_in().map_or(Default::default(), |put| put.retention);
        let ends = story.writes.iter().filter_map(|write| {
            let kept = match write.write.verdict.as_str() {
                "succeed" => retention.succeeded,
                "fail" => retention.failed,
                "retry" if story.is_last_attempt(write.write.token) => retention.failed,
                "cancel" => retention.cancelled,
                _ => return None,
            };
            (write.answer != Some(Answer::Lost)).then_some((write.i, write.c, kept))
        });
        // Whoever wants a running job cancelled lets its next settlement end it.
        let cancels = story.changes.iter().filter(|change| change.action.cancels());
        let cancels = cancels.map(|change| (change.i, u64::MAX, retention.cancelled));
        let requeued = |c: u64| {
            story.changes.iter().any(|change| {
                let requeues = change.action == ChangeKind::Requeue && change.fate == Some(Fate::Applied);
                requeues && c < change.i && change.c < pruning.i
            })
        };
        let hours = &self.model.hours;
        ends.chain(cancels).filter(|(_, c, _)| !requeued(*c)).any(|(i, _, kept)| match kept {
            Keep::Forever => false,
            Keep::For(span) => {
                !hours.surely_within(hours.latest(pruning.c), hours.earliest(i).plus(nanos_of(span)))
            }
        })
    }

    /// I2: whatever is given or seen was enqueued before, as it is.
    fn no_invention(&mut self) {
        let story = self.story;
        let mut seen: Vec<(&Seen, u64, Vec<usize>)> = Vec::new();
        seen.extend(story.grants.iter().map(|grant| (&grant.given.job, grant.c, grant.ops.clone())));
        seen.extend(story.sights.iter().map(|sight| (sight.seen, sight.c, vec![sight.op])));
        seen.extend(story.last.map(|last| (last, u64::MAX, Vec::new())));
        for (seen, until, mut ops) in seen {
            let before: Vec<_> = story.puts.iter().filter(|put| put.i < until).collect();
            if before.is_empty() {
                self.find(Invariant::I2, "it was never enqueued before it was seen", ops);
                return;
            }
            let differs: Vec<_> = before.iter().filter_map(|put| self.difference(put, seen)).collect();
            if differs.len() == before.len() {
                ops.extend(before.iter().map(|put| put.op));
                let why = format!("it was enqueued otherwise than it was seen: {}", differs.join("; "));
                self.find(Invariant::I2, why, ops);
                return;
            }
        }
    }

    /// I2: a claim is given only what matches it.
    fn nothing_that_was_not_asked_for(&mut self) {
        let story = self.story;
        let tags = story.taken_in().map(|put| &put.tags);
        let reordered = story.changes.iter().any(|change| change.action == ChangeKind::Reprioritise);
        for grant in &story.grants {
            let job = &grant.given.job;
            for op in &grant.ops {
                let Call::Claim(asked) = self.model.ops[*op].call else { continue };
                let matches = asked.queues.contains(&job.queue)
                    && asked.kinds.takes(&job.kind)
                    && tags.is_none_or(|tags| asked.tags.takes(tags))
                    && (reordered || asked.min_priority.is_none_or(|least| job.priority >= least));
                if !matches {
                    self.find(Invariant::I2, "it was given to a claim that it does not match", [*op]);
                }
            }
        }
    }

    /// In what a job differs from how it was enqueued, as nobody has changed it.
    fn difference(&self, put: &Enqueued<'_>, seen: &Seen) -> Option<String> {
        let put = put.put;
        let changed = |action| self.story.changes.iter().any(|change| change.action == action);
        let mut differs = Vec::new();
        if put.payload != seen.payload && !self.story.brought.contains(&seen.payload) {
            differs.push("its payload".to_owned());
        }
        if put.kind != seen.kind {
            differs.push(format!("its kind, {} and {}", put.kind, seen.kind));
        }
        if put.queue != seen.queue && !changed(ChangeKind::Move) {
            differs.push(format!("its queue, {} and {}", put.queue, seen.queue));
        }
        if put.priority != seen.priority && !changed(ChangeKind::Reprioritise) {
            differs.push(format!("its priority, {} and {}", put.priority, seen.priority));
        }
        let timed = [ChangeKind::Postpone, ChangeKind::Requeue].into_iter().any(changed)
            || put.is_parked() && changed(ChangeKind::Unpark);
        let put_back = |write: &Fenced<'_>| matches!(write.write.verdict.as_str(), "retry" | "release");
        if let DueAs::At(at) = put.due
            && at != seen.due
            && !(timed || self.story.writes.iter().any(put_back))
        {
            differs.push(format!("its due time, {at:?} and {:?}", seen.due));
        }
        (!differs.is_empty()).then(|| differs.join(", "))
    }

    /// I7: a handler runs under a lease that its own process was given, once, and no more often than retries,
    /// losses and requeues explain.
    fn no_work_without_a_claim(&mut self) {
        let story = self.story;
        let mut started = BTreeSet::new();
        for run in &story.runs {
            let grant = story.grants.iter().find(|grant| grant.given.token == run.token);
            let ops = grant.map(|grant| grant.ops.clone()).unwrap_or_default();
            let mine = |op: &usize| self.model.ops[*op].p == run.p && self.model.ops[*op].c <= run.t;
            if !ops.iter().any(mine) {
                let why = format!("{} ran it under a lease that it had not been given", run.p);
                self.find(Invariant::I7, why, ops.clone());
            }
            if !started.insert(run.token) {
                self.find(Invariant::I7, "it was started twice under one lease", ops);
            }
        }
        if self.rules.runs_told {
            self.no_verdict_without_work();
        }
        let again = |kind: Kind, verdict: &str| {
            kind == Kind::Recover || kind == Kind::Settle && matches!(verdict, "retry" | "release")
        };
        let writes = story.writes.iter().filter(|write| write.answer != Some(Answer::Lost));
        let comebacks: BTreeSet<_> = writes
            .filter(|write| again(write.kind, &write.write.verdict))
            .map(|write| write.write.token)
            .collect();
        let requeues = story.changes.iter().filter(|change| change.action == ChangeKind::Requeue).count();
        let allowed = 1 + comebacks.len() + requeues;
        if story.runs.len() > allowed {
            let why = format!("it was started {} times, and {allowed} can be explained", story.runs.len());
            let ops: Vec<usize> = story.grants.iter().flat_map(|grant| grant.ops.clone()).collect();
            self.find(Invariant::I7, why, ops);
        }
    }

    /// I7: whoever says how an attempt went has begun it.
    fn no_verdict_without_work(&mut self) {
        let story = self.story;
        let tells = |write: &&Fenced<'_>| {
            let verdict = matches!(write.write.verdict.as_str(), "succeed" | "fail" | "retry");
            write.kind == Kind::Settle && verdict && write.answer == Some(Answer::Applied)
        };
        for write in story.writes.iter().filter(tells) {
            let begun = |run: &Run<'_>| run.token == write.write.token && run.t <= write.c;
            if !story.runs.iter().any(begun) {
                self.find(Invariant::I7, "its attempt was settled, and nobody had begun it", [write.op]);
            }
        }
    }

    /// I9: no job is given before the time that its producer said.
    fn no_claim_before_its_time(&mut self) {
        let story = self.story;
        let hours = &self.model.hours;
        // Who unparks a job that is not parked gives it no other time.
        let parked = story.puts.iter().filter(|put| !put.failed).all(|put| put.put.is_parked());
        let moved = |until: u64| {
            let timed = |action| match action {
                ChangeKind::Postpone | ChangeKind::Requeue => true,
                ChangeKind::Unpark => parked,
                _ => false,
            };
            story.changes.iter().any(|change| timed(change.action) && change.i < until)
        };
        for grant in &story.grants {
            let given = grant.given;
            if given.started.is_some_and(|started| started < given.job.due) {
                let why = format!("it was given at {:?} and due at {:?}", given.started, given.job.due);
                self.find(Invariant::I9, why, grant.ops.clone());
                continue;
            }
            let due = |put: &Enqueued<'_>| match put.put.due {
                DueAs::At(at) => hours.named(at).unwrap_or(Hour::FIRST),
                DueAs::In(delay) => hours.earliest(put.i).plus(nanos(delay)),
            };
            // Which of several calls took it in is not known, so the earliest counts.
            let due = story.puts.iter().filter(|put| !put.failed).map(due).min().unwrap_or(Hour::FIRST);
            if hours.surely_before(hours.latest(grant.c), due) && !moved(grant.c) {
                let ops = grant.ops.iter().copied().chain(story.puts.iter().map(|put| put.op));
                self.find(Invariant::I9, "it was given before the time that its producer said", ops);
            }
        }
    }
}

impl World<'_, '_> {
    /// I1: no more jobs are gone for no other reason than the prunings tell.
    pub(super) fn nothing_else_pruned(&mut self) {
        let prunings = self.model.ops.iter().filter(|op| matches!(op.call, Call::Prune));
        let told: Option<u64> = prunings
            .filter(|op| !matches!(op.outcome, Outcome::Failed))
            .map(|op| match op.outcome {
                Outcome::Ok(Reply::Prune(jobs)) => Some(*jobs),
                _ => None,
            })
            .sum();
        let Some(told) = told.filter(|_| self.model.looked_last && !self.rules.repeats_inside) else {
            return;
        };
        let is_gone = |story: &&Story<'_>| {
            let deleted = |change: &Changed| change.action == ChangeKind::Delete && !change.pruned;
            story.last.is_none()
                && story.puts.iter().any(Enqueued::is_there)
                && !story.changes.iter().any(deleted)
        };
        let gone: Vec<&Story<'_>> = self.model.stories.values().filter(is_gone).collect();
        if gone.len() as u64 > told
            && let Some(put) = gone.first().and_then(|story| story.puts.first())
        {
            let why = format!("it is one of {} jobs that are gone, and prunings told of {told}", gone.len());
            self.find(Invariant::I1, About::Job(put.put.job), why, [put.op]);
        }
    }
}
