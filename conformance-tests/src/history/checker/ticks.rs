//! I18: each tick of a schedule is one job, none is missed and none is made up.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::{JobId, RegisterName, Timestamp, VersionId};

use super::World;
use super::model::{Model, Outcome};
use crate::history::event::{Call, ChangeKind, Entry, Plan};
use crate::history::verdict::{About, Invariant};

/// The writes of one schedule.
#[derive(Debug, Default)]
struct Plans<'h> {
    /// All of them, by version.
    versions: BTreeMap<VersionId, &'h Plan>,
    /// Those that were acknowledged, with their calls: a repetition counts once.
    written: BTreeMap<VersionId, (usize, &'h Plan)>,
    /// Whether it may have been removed.
    removed: bool,
}

impl World<'_, '_> {
    pub(super) fn ticks(&mut self) {
        for (name, plans) in plans(self.model) {
            self.no_version_is_followed_twice(name, &plans);
            let fired = self.no_tick_is_missed(name, &plans);
            if let Some(wanted) = self.rules.ticks.get(name) {
                let made_up: Vec<&Timestamp> = fired.iter().filter(|tick| !wanted.contains(tick)).collect();
                if !made_up.is_empty() {
                    let why = format!("it fired at {made_up:?}, where it has no tick");
                    self.find(Invariant::I18, About::Register(name.clone()), why, []);
                }
            }
        }
        for (name, wanted) in &self.rules.ticks {
            for tick in wanted {
                self.is_one_job(name, *tick, None);
            }
        }
    }

    /// I18: a schedule is written over a version once.
    fn no_version_is_followed_twice(&mut self, name: &RegisterName, plans: &Plans<'_>) {
        let mut followed: BTreeMap<Option<VersionId>, usize> = BTreeMap::new();
        for (op, plan) in plans.written.values() {
            let Some(first) = followed.insert(plan.expected, *op) else { continue };
            if plan.expected.is_some() || !plans.removed {
                let why = format!("two writes over the version {:?} were accepted", plan.expected);
                self.find(Invariant::I18, About::Register(name.clone()), why, [first, *op]);
            }
        }
    }

    /// I18: whatever a schedule was moved on over has become a job. Answers the ticks that were.
    fn no_tick_is_missed(&mut self, name: &RegisterName, plans: &Plans<'_>) -> BTreeSet<Timestamp> {
        let mut fired = BTreeSet::new();
        for (op, plan) in plans.written.values() {
            let before = plan.expected.and_then(|version| plans.versions.get(&version));
            for tick in before.map(|before| moved_over(before, plan)).unwrap_or_default() {
                fired.insert(tick);
                self.is_one_job(name, tick, Some(*op));
            }
        }
        fired
    }

    /// I18: a tick is one job, however many enqueued it.
    fn is_one_job(&mut self, name: &RegisterName, tick: Timestamp, moved_on: Option<usize>) {
        let job = JobId::of_tick(name, tick);
        let story = self.model.stories.get(&job);
        let puts = story.iter().flat_map(|story| story.puts.iter());
        let taken: Vec<_> = puts.filter(|put| put.may_be_taken_in()).collect();
        let created = taken.iter().filter(|put| put.entry == Some(Entry::Created)).count();
        let deleted =
            story.is_some_and(|story| story.changes.iter().any(|change| change.action == ChangeKind::Delete));
        let why = if taken.is_empty() {
            format!("its tick at {tick:?} has no job")
        } else if created > 1 && !deleted {
            format!("its tick at {tick:?} became {created} jobs")
        } else {
            return;
        };
        let ops = taken.iter().map(|put| put.op).chain(moved_on);
        self.find(Invariant::I18, About::Register(name.clone()), why, ops.collect::<Vec<_>>());
    }
}

/// The ticks that a write says to have fired, of those that the one before it had to fire.
fn moved_over(before: &Plan, after: &Plan) -> Vec<Timestamp> {
    match (&before.fires, &after.fires) {
        (Some(due), Some(left)) => due.iter().copied().filter(|tick| !left.contains(tick)).collect(),
        _ => before.next.into_iter().filter(|tick| after.next.is_some_and(|next| next > *tick)).collect(),
    }
}

fn plans<'h>(model: &Model<'h>) -> BTreeMap<&'h RegisterName, Plans<'h>> {
    let mut schedules: BTreeMap<&RegisterName, Plans<'_>> = BTreeMap::new();
    for (index, op) in model.ops.iter().enumerate() {
        match op.call {
            Call::PutRegister(plan) => {
                let plans = schedules.entry(&plan.name).or_default();
                plans.versions.insert(plan.version, plan);
                if matches!(op.outcome, Outcome::Ok(_)) {
                    plans.written.entry(plan.version).or_insert((index, plan));
                }
            }
            Call::DeleteRegister(name) => schedules.entry(name).or_default().removed = true,
            _ => {}
        }
    }
    schedules
}
