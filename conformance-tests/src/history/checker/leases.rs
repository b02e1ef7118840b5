//! From when until when a lease is certainly held.

use leasehold_core::LeaseToken;
use leasehold_core::backend::Answer;

use super::hours::{Hour, nanos};
use super::model::{Fenced, Grant, Kind, Model, Story};
use crate::history::event::ChangeKind;

impl<'h> Story<'h> {
    /// The writes under this lease that were not refused outright.
    pub(super) fn under<'s>(&'s self, grant: &'s Grant<'_>) -> impl Iterator<Item = &'s Fenced<'h>> {
        self.writes.iter().filter(move |write| write.write.token == grant.given.token)
    }

    /// Whether this lease is of an attempt after which there is none, or may be.
    pub(super) fn is_last_attempt(&self, token: LeaseToken) -> bool {
        let taken = self.puts.iter().filter(|put| put.may_be_taken_in());
        let most = taken.map(|put| put.put.max_attempts).min().unwrap_or(0);
        let grant = self.grants.iter().find(|grant| grant.given.token == token);
        grant.is_none_or(|grant| grant.given.job.attempt >= most)
    }

    /// From when on the holder or an operator may have let go of the lease.
    pub(super) fn let_go(&self, grant: &Grant<'_>) -> u64 {
        let settled = self.under(grant).filter(|write| write.kind == Kind::Settle).map(|write| write.i);
        let quiet = |action| {
            use ChangeKind::{Cancel, CancelParked, Reprioritise, Unpark};
            matches!(action, Cancel | Reprioritise | Unpark | CancelParked)
        };
        let changed =
            self.changes.iter().filter(|c| !quiet(c.action) && !c.pruned && c.c > grant.i).map(|c| c.i);
        settled.chain(changed).min().unwrap_or(u64::MAX)
    }
}

impl Model<'_> {
    /// The end of a lease by the store's clock, as early as it can have been, counting only renewals that were
    /// answered by `until`.
    pub(super) fn earliest_end(&self, story: &Story<'_>, grant: &Grant<'_>, until: u64) -> Hour {
        let claimed = self.hours.earliest(grant.i).plus(grant.lease);
        let renewals = story.under(grant).filter(|write| {
            write.kind == Kind::Renew && write.answer == Some(Answer::Applied) && write.c < until
        });
        let renewed = renewals.map(|renewal| self.hours.earliest(renewal.i).plus(nanos(renewal.write.span)));
        renewed.fold(claimed, Hour::max)
    }

    /// Whether a lease is certainly held at a moment after it was given.
    pub(super) fn is_held(&self, story: &Story<'_>, grant: &Grant<'_>, t: u64) -> bool {
        let end = self.earliest_end(story, grant, t);
        grant.c <= t && t < story.let_go(grant) && self.hours.surely_within(self.hours.latest(t), end)
    }
}
