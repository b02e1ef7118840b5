use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::store::Store;
use super::wake::jittered;
use crate::backend::{Answer, Expired, ExpiredLease, Recover, Settlement, Verdict};
use crate::error::Result;
use crate::id::JobId;
use crate::policy::{Decision, RetryPolicy, after_expiry};

/// How many leases are taken back in one call.
const BATCH: usize = 500;

impl Store {
    /// Takes back jobs whose leases ran out, a bounded batch of them (clause C3). Answers whether there may be more, and
    /// tells what each became.
    pub(crate) async fn recover_some(
        &self,
        policy: &RetryPolicy,
        told: impl Fn(JobId, &Verdict),
    ) -> Result<bool> {
        self.looks_for_lost(Duration::ZERO);
        let limit = BATCH.min(self.limits().page).min(self.limits().batch);
        let expired = self.backend().expired(self.deadline(), Expired { limit }).await?;
        let found = expired.len();
        if found == 0 {
            return Ok(false);
        }
        let decide = |lease: ExpiredLease| {
            let Decision { verdict, failure } = after_expiry(&lease, policy, fastrand::f64());
            tracing::warn!(job = %lease.job, attempt = lease.attempt, becomes = verdict.name(), "a lease ran out");
            Settlement { job: lease.job, token: lease.token, verdict, failure }
        };
        let settlements: Vec<Settlement> = expired.into_iter().map(decide).collect();
        crate::fail_point!("recover::before_send");
        let answers =
            self.backend().recover(self.deadline(), Recover { settlements: settlements.clone() }).await?;
        let taken = settlements.iter().zip(&answers).filter(|(_, answer)| **answer != Answer::Lost);
        taken.for_each(|(settlement, _)| told(settlement.job, &settlement.verdict));
        let recovered = answers.iter().filter(|answer| **answer != Answer::Lost).count();
        metrics::counter!("leasehold_leases_recovered_total").increment(recovered as u64);
        // Where none could be taken back, others are at it, or hold them locked.
        Ok(found == limit && recovered > 0)
    }

    /// Whether nobody with a clone of this handle has looked for lost leases for so long, and if so, that it is done now.
    fn looks_for_lost(&self, pause: Duration) -> bool {
        let mut looked = self.known().recovered.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = looked.is_none_or(|at| at.elapsed() >= pause);
        if is_time {
            *looked = Some(Instant::now());
        }
        is_time
    }

    /// Takes back lost leases if it is time, all that there are. It never fails what it is a part of.
    pub(super) async fn recover_in_turn(&self, every: Duration, policy: &RetryPolicy) {
        // Several may look by one handle; two that look at nearly the same time are one too many.
        let mut more = self.looks_for_lost(every / 2);
        while more {
            more = self.recover_some(policy, |_, _| {}).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "leases that ran out could not be recovered");
                false
            });
        }
    }
}

/// Takes back lost leases for as long as this value lives: for programs without a worker.
pub(super) fn recovers(store: Store, every: Duration, policy: RetryPolicy) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            sleep(jittered(every)).await;
            store.recover_in_turn(every, &policy).await;
        }
    }))
}
