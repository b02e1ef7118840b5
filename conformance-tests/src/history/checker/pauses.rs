//! When a queue is paused, and when it may be.

use leasehold_core::QueueName;

use super::model::{Model, Op, Outcome};
use crate::history::event::{Call, Setting};

impl Model<'_> {
    /// The settings of a queue that were written, or may have been.
    fn settings<'s>(&'s self, queue: &'s QueueName) -> impl Iterator<Item = (&'s Op<'s>, &'s Setting)> {
        let settings = self.settings.get(queue).into_iter().flatten();
        settings.filter_map(|&op| match &self.ops[op] {
            op @ Op { call: Call::SetQueue(set), .. } if !matches!(op.outcome, Outcome::Failed) => {
                Some((op, set))
            }
            _ => None,
        })
    }

    /// The call by which a queue was certainly paused all the time between these moments.
    pub(super) fn paused_by(&self, queue: &QueueName, from: u64, to: u64) -> Option<usize> {
        let roots = queue.roots().filter_map(|root| self.paused_itself_by(&root, from, to)).next();
        self.paused_itself_by(queue, from, to).or(roots)
    }

    fn paused_itself_by(&self, queue: &QueueName, from: u64, to: u64) -> Option<usize> {
        self.settings.get(queue)?.iter().copied().rfind(|&index| {
            let op = &self.ops[index];
            let paused = matches!(op.call, Call::SetQueue(set) if set.paused);
            let resumed =
                self.settings(queue).any(|(later, set)| !set.paused && later.c > op.i && later.i < to);
            paused && matches!(op.outcome, Outcome::Ok(_)) && op.c < from && !resumed
        })
    }

    /// Whether a queue may have been paused at any time between these moments.
    pub(super) fn may_be_paused(&self, queue: &QueueName, from: u64, to: u64) -> bool {
        queue.roots().chain([queue.clone()]).any(|queue| self.may_be_paused_itself(&queue, from, to))
    }

    fn may_be_paused_itself(&self, queue: &QueueName, from: u64, to: u64) -> bool {
        self.settings(queue).any(|(pause, set)| {
            let resumed = self.settings(queue).any(|(later, set)| {
                !set.paused && matches!(later.outcome, Outcome::Ok(_)) && later.i > pause.c && later.c < from
            });
            set.paused && pause.i < to && !resumed
        })
    }
}
