//! I12: a cancelled job goes on no further than to its holder's next step, and its holder is told.

use leasehold_core::State;
use leasehold_core::backend::Answer;

use super::Judge;
use super::lives::End;
use super::model::{Changed, Fenced, Kind};
use crate::history::event::{ChangeKind, Fate};
use crate::history::verdict::Invariant;

impl Judge<'_, '_> {
    pub(super) fn cancels(&mut self) {
        let ends = self.cancelled_ends();
        self.no_life_after_an_end(Invariant::I12, &ends);
        self.its_holder_is_told();
        self.nobody_is_told_of_no_cancellation();
    }

    /// Where the job certainly ended as cancelled: by a cancellation while it waited, or by whatever put it back
    /// after one that was asked for while it ran.
    pub(super) fn cancelled_ends(&self) -> Vec<End> {
        let story = self.story;
        let end = |op, i, c| End { op, i, c, state: State::Cancelled };
        let waiting = story.changes.iter().filter(|change| is_cancel(change, Fate::Applied));
        let mut ends: Vec<End> = waiting.map(|change| end(change.op, change.i, change.c)).collect();
        for asked in story.changes.iter().filter(|change| is_cancel(change, Fate::Requested)) {
            let puts_back = |write: &&Fenced<'_>| {
                matches!(write.kind, Kind::Settle | Kind::Recover)
                    && matches!(write.write.verdict.as_str(), "retry" | "release")
            };
            let back = self.applied_after(asked).filter(puts_back);
            ends.extend(back.map(|write| end(write.op, write.i, write.c)));
        }
        // It may have been asked for several times before it ended once.
        ends.sort_by_key(|end| end.op);
        ends.dedup_by_key(|end| end.op);
        ends
    }

    /// The writes that were accepted under the lease which was held when a cancellation was asked for.
    fn applied_after<'s>(&'s self, asked: &'s Changed) -> impl Iterator<Item = &'s Fenced<'s>> {
        self.story.writes.iter().filter(move |write| {
            let token = write.write.token;
            let held = self.story.grants.iter().find(|grant| grant.given.token == token);
            write.answer == Some(Answer::Applied)
                && asked.c < write.i
                && held.is_some_and(|grant| grant.c < asked.i)
        })
    }

    /// I12: the first renewal after it was asked for says so.
    fn its_holder_is_told(&mut self) {
        let story = self.story;
        for asked in story.changes.iter().filter(|change| is_cancel(change, Fate::Requested)) {
            let untold = self.applied_after(asked).find(|write| write.kind == Kind::Renew && !write.cancel);
            if let Some(op) = untold.map(|write| write.op) {
                let why = "a renewal did not tell that somebody had asked to cancel it";
                self.find(Invariant::I12, why, [asked.op, op]);
            }
        }
    }

    /// I12: nobody is told of a cancellation that nobody asked for.
    fn nobody_is_told_of_no_cancellation(&mut self) {
        let story = self.story;
        for write in story.writes.iter().filter(|write| write.cancel) {
            let asked = |change: &Changed| change.action == ChangeKind::Cancel && change.i < write.c;
            if !story.changes.iter().any(asked) {
                self.find(
                    Invariant::I12,
                    "a renewal told of a cancellation that nobody had asked for",
                    [write.op],
                );
            }
        }
    }
}

fn is_cancel(change: &Changed, fate: Fate) -> bool {
    change.action.cancels() && change.fate == Some(fate)
}
