use tokio::time::Instant;

use crate::backend::Claim;
use crate::policy::LeaseTimes;

/// A claim, and when it was first asked for. If its answer is lost it is made again as it is, and finds the jobs
/// that the store has given out for it (clause E2).
pub(crate) struct Asked {
    pub(crate) claim: Claim,
    pub(crate) at: Instant,
}

impl Asked {
    pub(crate) fn now(claim: Claim) -> Self {
        Self { claim, at: Instant::now() }
    }

    /// Whether jobs that it was given may still be run under their leases.
    pub(crate) fn may_still_hold(&self) -> bool {
        self.at.elapsed() < LeaseTimes::of(self.claim.lease).fence
    }
}
