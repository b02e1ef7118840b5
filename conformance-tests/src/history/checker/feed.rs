//! I14: events are hints, and any may be missing; but none tells of what nobody had begun, or of what its watcher
//! had not asked for.

use std::collections::BTreeMap;

use leasehold_core::backend::Answer;
use leasehold_core::{QueueName, State};

use super::World;
use super::model::{Kind, Model, Story, Told};
use crate::history::event::{Call, ChangeKind};
use crate::history::hint::{Hint, Watching};
use crate::history::verdict::{About, Invariant};

impl World<'_, '_> {
    pub(super) fn feed(&mut self) {
        let model = self.model;
        let watches: BTreeMap<(&str, u64), (usize, &Watching)> = model
            .ops
            .iter()
            .enumerate()
            .filter_map(|(index, op)| match op.call {
                Call::Watch(watching) => Some(((op.p, op.number), (index, watching))),
                _ => None,
            })
            .collect();
        let first_put = first_by_queue(model);
        for told in &model.told {
            let watch = watches.get(&(told.p, told.number));
            let why = match watch {
                Some((_, watching)) if !asked_for(told.hint, watching) => "which it had not asked for",
                Some(_) if !may_be(model, told, &first_put) => "which nobody had begun",
                Some(_) => continue,
                None => "and nobody of this number watches",
            };
            let about = match (told.hint.job(), told.hint.queue()) {
                (Some(job), _) => About::Job(job),
                (None, Some(queue)) => About::Queue(queue.clone()),
                (None, None) => continue,
            };
            let why = format!("a watcher was told of {:?}, {why}", told.hint);
            self.find(Invariant::I14, about, why, watch.map(|(op, _)| *op));
        }
    }
}

fn asked_for(hint: &Hint, watching: &Watching) -> bool {
    let of_another = |queues: &Vec<QueueName>| hint.queue().is_some_and(|queue| !queues.contains(queue));
    (watching.logs || !matches!(hint, Hint::Logged(..))) && !watching.queues.as_ref().is_some_and(of_another)
}

/// When a job of each queue was first enqueued or moved there.
fn first_by_queue<'h>(model: &Model<'h>) -> BTreeMap<&'h QueueName, u64> {
    let mut first = BTreeMap::new();
    for op in &model.ops {
        let queues: Vec<&QueueName> = match op.call {
            Call::Enqueue(puts) => puts.iter().map(|put| &put.queue).collect(),
            Call::Amend(change) => change.queue.iter().collect(),
            _ => continue,
        };
        for queue in queues {
            first.entry(queue).or_insert(op.i);
        }
    }
    first
}

/// Whether what a watcher was told may have happened by then.
fn may_be(model: &Model<'_>, told: &Told<'_>, first: &BTreeMap<&QueueName, u64>) -> bool {
    let begun = |queue| first.get(queue).is_some_and(|t| *t < told.t);
    let set = |queue| {
        let settings = model.settings.get(queue);
        settings.is_some_and(|settings| settings.iter().any(|&op| model.ops[op].i < told.t))
    };
    let story = told.hint.job().and_then(|job| model.stories.get(&job));
    match told.hint {
        // A queue that goes on after a pause may have jobs that wait.
        Hint::Waiting(queue) => begun(queue) || set(queue),
        Hint::QueueSet(queue) => set(queue),
        Hint::Changed(_, queue, state) => {
            begun(queue) && story.is_some_and(|story| story.may_be_in(model, *state, told.t))
        }
        Hint::CancelRequested(..) => story.is_some_and(|story| {
            let mut changes = story.changes.iter();
            changes.any(|change| change.action == ChangeKind::Cancel && change.i < told.t)
        }),
        Hint::Logged(..) => story.is_some_and(|story| {
            let logged = |kind| kind == Kind::Log;
            story.writes.iter().any(|write| logged(write.kind) && write.i < told.t)
        }),
        Hint::Unrecorded => true,
    }
}

impl Story<'_> {
    /// Whether the job may have been in this state at any time until then.
    fn may_be_in(&self, model: &Model<'_>, state: State, until: u64) -> bool {
        let settled = |verdicts: &[&str]| {
            self.writes.iter().any(|write| {
                matches!(write.kind, Kind::Settle | Kind::Recover)
                    && verdicts.contains(&write.write.verdict.as_str())
                    && write.answer != Some(Answer::Lost)
                    && write.i < until
            })
        };
        match state {
            State::Scheduled | State::Queued => {
                self.puts.iter().any(|put| put.may_be_taken_in() && put.i < until)
            }
            State::Running => {
                self.grants.iter().any(|grant| grant.i < until)
                    || model.lost_claims.iter().any(|lost| lost.i < until)
            }
            State::Succeeded => settled(&["succeed"]),
            // The last attempt fails where its retry was asked for.
            State::Failed => settled(&["fail", "retry"]),
            State::Cancelled => {
                settled(&["cancel"])
                    || self.changes.iter().any(|change| change.action.cancels() && change.i < until)
            }
        }
    }
}
