use tokio::time::Instant;

use super::rates::Permit;
use super::store::Store;
use crate::backend::Claim;
use crate::policy::LeaseTimes;
use crate::time::Deadline;

/// A claim, and when it was first asked for. If its answer is lost it is made again as it is, and finds the jobs
/// that the store has given out for it (clause E2).
pub(crate) struct Asked {
    pub(crate) claim: Claim,
    pub(crate) at: Instant,
    /// What it may claim of a queue with a rate.
    pub(crate) permit: Option<Permit>,
}

impl Asked {
    pub(crate) fn now(claim: Claim) -> Self {
        Self { claim, at: Instant::now(), permit: None }
    }

    /// A claim under the rate of its queue.
    pub(crate) fn under(permit: Permit, claim: Claim) -> Self {
        let claim = Claim { limit: permit.count(), rated: true, ..claim };
        Self { permit: Some(permit), ..Self::now(claim) }
    }

    /// By when it has to be answered: no later than what it was permitted counts for.
    pub(crate) fn deadline(&self, store: &Store) -> Deadline {
        let patience = store.deadline();
        self.permit.as_ref().map_or(patience, |permit| patience.min(permit.until()))
    }

    /// Tells its rate how many jobs it was given.
    pub(crate) async fn answered(&mut self, jobs: usize) {
        if let Some(permit) = self.permit.take() {
            permit.settle(jobs).await;
        }
    }

    /// Whether it may be made again: jobs that it was given may still be run under their leases, and it may still be
    /// given some.
    pub(crate) fn may_still_hold(&self) -> bool {
        let permitted = self.permit.as_ref().is_none_or(|permit| !permit.until().has_passed());
        permitted && self.at.elapsed() < LeaseTimes::of(self.claim.lease).fence
    }
}
