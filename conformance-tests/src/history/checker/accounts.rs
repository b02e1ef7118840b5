//! I1, I2, I7 and I9: what goes in comes out, as it went in, when it may, and is run no more often.

use std::collections::BTreeSet;

use leasehold_core::Keep;
use leasehold_core::backend::Answer;

use super::Judge;
use super::hours::{nanos, nanos_of};
use super::model::{Changed, Enqueued, Kind};
use crate::history::event::{Call, ChangeKind, DueAs, Entry, Seen};
use crate::history::verdict::Invariant;

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
        let acknowledged: Vec<usize> = story
            .puts
            .iter()
            .filter(|put| matches!(put.entry, Some(Entry::Created | Entry::Existing)))
            .map(|put| put.op)
            .collect();
        let deletes = |change: &&Changed| change.action == ChangeKind::Delete;
        let mut deletions = story.changes.iter().filter(deletes);
        let removed = deletions.any(|change| !change.pruned || self.may_be_over(change.c));
        if story.shown_last > 1 {
            self.find(Invariant::I1, format!("it is there {} times", story.shown_last), acknowledged.clone());
        }
        if self.model.looked_last && !acknowledged.is_empty() && story.last.is_none() && !removed {
            self.find(Invariant::I1, "it was acknowledged and is gone at the end", acknowledged);
        }
        let created = |put: &&Enqueued<'_>| put.entry == Some(Entry::Created);
        let created: Vec<usize> = story.puts.iter().filter(created).map(|put| put.op).collect();
        if created.len() > 1 && !removed {
            self.find(Invariant::I1, "two calls were told that they created it", created);
        }
        let all_failed = !story.puts.is_empty() && story.puts.iter().all(|put| put.failed);
        if all_failed && !(story.grants.is_empty() && story.sights.is_empty() && story.last.is_none()) {
            let ops: Vec<usize> = story.puts.iter().map(|put| put.op).collect();
            self.find(Invariant::I1, "its enqueue failed for certain, and it is there", ops);
        }
    }

    /// Whether the job may have ended so long ago that a pruning may remove it.
    fn may_be_over(&self, until: u64) -> bool {
        let retention = self.story.puts.first().map_or(Default::default(), |put| put.put.retention);
        let ends = self.story.writes.iter().filter_map(|write| {
            let kept = match write.write.verdict.as_str() {
                "succeed" => retention.succeeded,
                "fail" | "retry" => retention.failed,
                "cancel" => retention.cancelled,
                _ => return None,
            };
            (write.answer != Some(Answer::Lost)).then_some((write.i, kept))
        });
        let cancels = self.story.changes.iter().filter(|change| change.action == ChangeKind::Cancel);
        let mut ends = ends.chain(cancels.map(|change| (change.i, retention.cancelled)));
        let hours = &self.model.hours;
        ends.any(|(i, kept)| match kept {
            Keep::Forever => false,
            Keep::For(span) => {
                let over = hours.earliest(i).saturating_add(nanos_of(span));
                !hours.surely_within(hours.latest(until), over)
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
        let tags = story.puts.first().map(|put| &put.put.tags);
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
        if put.payload != seen.payload {
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

    /// I9: no job is given before the time that its producer said.
    fn no_claim_before_its_time(&mut self) {
        let story = self.story;
        let hours = &self.model.hours;
        let moved = |until: u64| {
            let timed = |action| matches!(action, ChangeKind::Postpone | ChangeKind::Requeue);
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
                DueAs::At(at) if hours.are_the_stores() => nanos(u64::try_from(at.as_millis()).unwrap_or(0)),
                DueAs::At(_) => i64::MIN,
                DueAs::In(delay) => hours.earliest(put.i).saturating_add(nanos(delay)),
            };
            // Which of several calls took it in is not known, so the earliest counts.
            let due = story.puts.iter().filter(|put| !put.failed).map(due).min().unwrap_or(i64::MIN);
            if hours.surely_before(hours.latest(grant.c), due) && !moved(grant.c) {
                let ops = grant.ops.iter().copied().chain(story.puts.iter().map(|put| put.op));
                self.find(Invariant::I9, "it was given before the time that its producer said", ops);
            }
        }
    }
}
