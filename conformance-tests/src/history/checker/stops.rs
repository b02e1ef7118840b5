//! I16: a worker that was stopped is given nothing more, and has let go of all that it held.

use std::collections::BTreeMap;

use leasehold_core::WorkerId;
use leasehold_core::backend::Answer;

use super::World;
use super::model::{Grant, Kind, Model, Story};
use crate::history::event::Call;
use crate::history::verdict::{About, Invariant};

impl World<'_, '_> {
    pub(super) fn stops(&mut self) {
        let model = self.model;
        // Of several stops of one worker the first counts.
        let stopped: BTreeMap<WorkerId, u64> = model.stopped.iter().rev().copied().collect();
        if stopped.is_empty() {
            return;
        }
        for story in model.stories.values() {
            for grant in &story.grants {
                let Some(worker) = claimer(model, grant) else { continue };
                let Some(&t) = stopped.get(&worker) else { continue };
                let job = grant.given.job.job;
                let why = if t < grant.i {
                    format!("it was given job {job} after it had been stopped")
                } else if grant.c < t && story.is_kept(model, grant, t) {
                    format!("it was stopped, and still held job {job}")
                } else {
                    continue;
                };
                self.find(Invariant::I16, About::Worker(worker), why, grant.ops.clone());
            }
        }
    }
}

/// Who was given a job.
fn claimer(model: &Model<'_>, grant: &Grant<'_>) -> Option<WorkerId> {
    match model.ops[*grant.ops.first()?].call {
        Call::Claim(asked) => Some(asked.worker),
        _ => None,
    }
}

impl Story<'_> {
    /// Whether a lease was still certainly valid at a moment by which nobody had let go of it or learnt that it was
    /// lost.
    fn is_kept(&self, model: &Model<'_>, grant: &Grant<'_>, t: u64) -> bool {
        let let_go = self.under(grant).any(|write| {
            write.i < t
                && (matches!(write.kind, Kind::Settle | Kind::Recover) || write.answer == Some(Answer::Lost))
        });
        !let_go && model.is_held(self, grant, t)
    }
}
