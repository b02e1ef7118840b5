//! I17: no more jobs of a limit key run than may, and a paused queue gives out nothing.

use std::collections::BTreeMap;

use leasehold_core::LimitKey;

use super::World;
use super::model::{Changed, Enqueued, Grant, Kind, Model, Story};
use crate::history::event::ChangeKind;
use crate::history::story::short;
use crate::history::verdict::{About, Invariant};

/// A lease of a job that has a limit key, and its limit.
#[derive(Clone, Copy)]
struct Limited<'m, 'h> {
    story: &'m Story<'h>,
    grant: &'m Grant<'h>,
    max: u32,
}

impl World<'_, '_> {
    pub(super) fn limits(&mut self) {
        for (key, mut leases) in by_key(self.model) {
            leases.sort_by_key(|lease| lease.grant.c);
            self.no_limit_exceeded(key, &leases);
        }
        self.nothing_from_a_paused_queue();
    }

    /// I17: of the jobs that certainly run at one moment, the one that was given last saw all others.
    fn no_limit_exceeded(&mut self, key: &LimitKey, leases: &[Limited<'_, '_>]) {
        let mut held: Vec<Limited<'_, '_>> = Vec::new();
        for lease in leases {
            let now = lease.grant.c;
            held.retain(|other| other.runs(now));
            held.push(*lease);
            let mut counted: Vec<_> = held.iter().filter(|other| other.runs(now)).collect();
            if !self.rules.strict_limits {
                // Claims that are made at the same moment need not see each other.
                counted
                    .retain(|other| other.grant.c < lease.grant.i || std::ptr::eq(other.grant, lease.grant));
            }
            let seen = counted.iter().filter(|other| other.grant.c < lease.grant.i).count();
            counted.sort_by_key(|lease| lease.max);
            let too_many = counted.iter().enumerate().any(|(before, lease)| before >= lease.max as usize);
            if too_many || seen >= lease.max as usize {
                self.tell(key, &counted);
                held.clear();
            }
        }
    }

    fn tell(&mut self, key: &LimitKey, held: &[&Limited<'_, '_>]) {
        let why = format!("{} of its jobs were certainly held at once", held.len());
        let ops = held.iter().flat_map(|lease| lease.grant.ops.iter().copied());
        self.find(Invariant::I17, About::LimitKey(key.clone()), why, ops);
        let facts = held.iter().map(|lease| {
            let (job, token) = (lease.grant.given.job.job, short(lease.grant.given.token));
            format!("job {job} may run beside {} others; its lease is {token}", lease.max.saturating_sub(1))
        });
        if let Some(found) = self.findings.last_mut() {
            found.facts.extend(facts);
        }
    }

    /// I17: what is paused all the time that a claim takes gives it nothing.
    fn nothing_from_a_paused_queue(&mut self) {
        let model = self.model;
        for story in model.stories.values() {
            for grant in &story.grants {
                let queue = &grant.given.job.queue;
                if let Some(pause) = model.paused_by(queue, grant.i, grant.c) {
                    let why = format!("it is paused, and gave out job {}", grant.given.job.job);
                    let ops = grant.ops.iter().copied().chain([pause]);
                    self.find(Invariant::I17, About::Queue(queue.clone()), why, ops);
                }
            }
        }
    }
}

impl Limited<'_, '_> {
    /// Whether the job certainly runs at a moment after it was given: a lease that ran out is taken back by a call.
    fn runs(&self, t: u64) -> bool {
        let recovered = self.story.under(self.grant).filter(|write| write.kind == Kind::Recover);
        let until = recovered.map(|write| write.i).chain([self.story.let_go(self.grant)]).min();
        self.grant.c <= t && until.is_none_or(|until| t < until)
    }
}

fn by_key<'m, 'h>(model: &'m Model<'h>) -> BTreeMap<&'h LimitKey, Vec<Limited<'m, 'h>>> {
    let mut keys: BTreeMap<&LimitKey, Vec<Limited<'_, '_>>> = BTreeMap::new();
    for story in model.stories.values() {
        let Some(limit) = story.taken_in().and_then(|put| put.limit.as_ref()) else { continue };
        let leases = story.grants.iter().map(|grant| Limited { story, grant, max: limit.max });
        keys.entry(&limit.key).or_default().extend(leases);
    }
    keys
}

impl Model<'_> {
    /// A job that ends rather than waits for room is ended by whichever claim comes by, which does not tell: once, and once
    /// more each time that it was sent round again.
    pub(super) fn spread_ends_for_room(&mut self) {
        for story in self.stories.values_mut() {
            let ends = |put: &&Enqueued<'_>| put.put.limit.as_ref().is_some_and(|it| !it.when_full.is_wait());
            let Some(put) = story.puts.iter().filter(ends).min_by_key(|put| put.i) else { continue };
            let first = self.ops[put.op].changed_by(put.op, ChangeKind::Cancel);
            let requeued = story.changes.iter().filter(|change| change.action == ChangeKind::Requeue);
            let again = requeued.map(|change| Changed { action: ChangeKind::Cancel, fate: None, ..*change });
            let all: Vec<Changed> = again.chain([first]).collect();
            story.changes.extend(all.into_iter().map(|end| Changed { c: u64::MAX, ..end }));
        }
    }
}
