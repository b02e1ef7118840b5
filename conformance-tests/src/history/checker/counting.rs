//! I13: counts add up, and at rest they are those of the jobs that are there.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::backend::QueueCounts;
use leasehold_core::{QueueName, State};

use super::World;
use super::model::{Fenced, Model, Outcome, Story};
use crate::history::event::{Call, ChangeKind, Fate, Reply};
use crate::history::verdict::{About, Invariant};

/// When jobs came into a queue and left it.
#[derive(Debug, Default)]
struct Traffic {
    /// When one may have come in.
    came: Vec<u64>,
    /// When one certainly had.
    was_in: Vec<u64>,
    /// When one may have gone.
    went: Vec<u64>,
    /// When one certainly had.
    was_out: Vec<u64>,
}

impl World<'_, '_> {
    /// Answers why counts were not judged, if there were any and they were not.
    pub(super) fn counting(&mut self) -> Result<(), String> {
        let asked = self.model.ops.iter().any(|op| matches!(op.call, Call::Count));
        if !self.rules.exact_counts {
            let any = asked || self.model.last_counts.is_some();
            return if any {
                Err("the counts, which the store does not say are exact".into())
            } else {
                Ok(())
            };
        }
        let traffic = traffic(self.model);
        let none = Traffic::default();
        for (index, op) in self.model.ops.iter().enumerate() {
            let Outcome::Ok(Reply::Count(counts)) = op.outcome else { continue };
            for queue in counts {
                let traffic = traffic.get(&queue.queue).unwrap_or(&none);
                self.adds_up(queue, traffic, op.i, op.c, Some(index));
            }
        }
        if let Some(counts) = self.model.last_counts {
            for queue in counts {
                let traffic = traffic.get(&queue.queue).unwrap_or(&none);
                self.adds_up(queue, traffic, u64::MAX, u64::MAX, None);
            }
            self.equals_a_recount(counts);
        }
        Ok(())
    }

    /// I13: what is there and what is gone is what came, and that is what producers and operators did.
    fn adds_up(&mut self, counts: &QueueCounts, traffic: &Traffic, i: u64, c: u64, op: Option<usize>) {
        let QueueCounts { enqueued, deleted, .. } = *counts;
        let mut wrong = Vec::new();
        if counts.total() + deleted != enqueued {
            wrong.push(format!("{} jobs and {deleted} deleted ones are not {enqueued}", counts.total()));
        }
        let before = |times: &[u64], t: u64| times.partition_point(|time| *time < t) as u64;
        let (least, most) = (before(&traffic.was_in, i), before(&traffic.came, c));
        if !(least..=most).contains(&enqueued) {
            wrong.push(format!("{enqueued} jobs are said to have come in, and {least} to {most} did"));
        }
        let (least, most) = (before(&traffic.was_out, i), before(&traffic.went, c));
        if !(least..=most).contains(&deleted) {
            wrong.push(format!("{deleted} jobs are said to be gone, and {least} to {most} are"));
        }
        if !wrong.is_empty() {
            self.find(Invariant::I13, About::Queue(counts.queue.clone()), wrong.join("; "), op);
        }
    }

    /// I13: at rest the counts of each state are what the last look shows.
    fn equals_a_recount(&mut self, counts: &[QueueCounts]) {
        let mut recount: BTreeMap<&QueueName, BTreeMap<State, u64>> = BTreeMap::new();
        for last in self.model.stories.values().filter_map(|story| story.last) {
            *recount.entry(&last.queue).or_default().entry(settled(last.state)).or_default() += 1;
        }
        let queues: BTreeSet<&QueueName> =
            recount.keys().copied().chain(counts.iter().map(|c| &c.queue)).collect();
        for queue in queues {
            let mut told: BTreeMap<State, u64> = BTreeMap::new();
            let states =
                counts.iter().filter(|counts| counts.queue == *queue).flat_map(|counts| &counts.states);
            for (state, jobs) in states.filter(|(_, jobs)| **jobs > 0) {
                *told.entry(settled(*state)).or_default() += jobs;
            }
            let found = recount.remove(queue).unwrap_or_default();
            if self.model.looked_last && told != found {
                let why = format!("the last counts are {told:?}, and the jobs are {found:?}");
                self.find(Invariant::I13, About::Queue(queue.clone()), why, []);
            }
        }
    }
}

/// A state, but for what passes by the clock alone.
fn settled(state: State) -> State {
    if state == State::Scheduled { State::Queued } else { state }
}

fn traffic<'h>(model: &Model<'h>) -> BTreeMap<&'h QueueName, Traffic> {
    let mut queues: BTreeMap<&QueueName, Traffic> = BTreeMap::new();
    for story in model.stories.values() {
        came(story, &mut queues);
        moved_or_gone(model, story, &mut queues);
    }
    for traffic in queues.values_mut() {
        for times in [&mut traffic.came, &mut traffic.was_in, &mut traffic.went, &mut traffic.was_out] {
            times.sort_unstable();
        }
    }
    queues
}

fn came<'h>(story: &Story<'h>, queues: &mut BTreeMap<&'h QueueName, Traffic>) {
    let deletions = story.changes.iter().filter(|change| change.action == ChangeKind::Delete).count();
    let taken = story.puts.iter().filter(|put| put.may_be_taken_in());
    // However often an id is enqueued, it comes in once for each time that it may have been deleted, and once more.
    for put in taken.clone().take(1 + deletions) {
        queues.entry(&put.put.queue).or_default().came.push(put.i);
    }
    let known = taken.filter(|put| put.entry.is_some()).min_by_key(|put| put.c);
    if let Some(put) = known.filter(|put| story.puts.iter().all(|other| other.put.queue == put.put.queue)) {
        queues.entry(&put.put.queue).or_default().was_in.push(put.c);
    }
}

fn moved_or_gone<'h>(model: &Model<'h>, story: &Story<'h>, queues: &mut BTreeMap<&'h QueueName, Traffic>) {
    let mut homes: BTreeSet<&QueueName> = story.puts.iter().map(|put| &put.put.queue).collect();
    let moves = story.changes.iter().filter(|change| change.action == ChangeKind::Move);
    for change in moves.clone() {
        let here = |write: &&Fenced<'_>| write.op == change.op;
        let to: Vec<&QueueName> = match model.ops[change.op].call {
            Call::Amend(amended) => amended.queue.iter().collect(),
            _ => story.writes.iter().filter(here).filter_map(|it| it.write.queue.as_ref()).collect(),
        };
        for to in to {
            homes.insert(to);
            queues.entry(to).or_default().came.push(change.i);
        }
    }
    let leaves = |action| matches!(action, ChangeKind::Delete | ChangeKind::Move);
    for change in story.changes.iter().filter(|change| leaves(change.action)) {
        let gone = change.action == ChangeKind::Delete && change.fate == Some(Fate::Applied);
        for home in &homes {
            let traffic = queues.entry(home).or_default();
            traffic.went.push(change.i);
            if gone && homes.len() == 1 {
                traffic.was_out.push(change.c);
            }
        }
    }
}
