use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::run::EndedBy;
use super::shared::Shared;
use crate::backend::{Answer, CheckIn, Expired, Prune, Recover, Settlement, WorkerInfo};
use crate::client::jittered;
use crate::error::Result;
use crate::policy::{Decision, after_expiry};

/// How many items one call of maintenance touches.
const BATCH: usize = 500;
/// How often a worker says that it lives.
const CHECK_IN: Duration = Duration::from_secs(5);
/// How soon after a check-in what the worker says itself brings the next one forward.
const SAID: Duration = Duration::from_secs(1);
/// How often ended jobs whose retention is over are removed.
const PRUNE: Duration = Duration::from_secs(60);
/// How long a worker that is gone is remembered.
const FORGET_WORKERS: Duration = Duration::from_hours(24);

/// Does what any worker does for all, until `done`: takes back jobs whose leases ran out (clause C3), removes
/// what was kept long enough (F5), and checks in (F1).
pub(super) async fn maintain(shared: Arc<Shared>, done: CancellationToken) {
    // Beside each other: much to remove holds up neither of the others.
    tokio::join!(shared.checks_in(&done), shared.recovers(&done), shared.prunes(&done));
    tracing::info!("the worker has ended");
    report("the worker could not check out", shared.check_in(true).await);
}

/// Whether a moment has come, and `done` not before it.
async fn has_come(moment: Instant, done: &CancellationToken) -> bool {
    tokio::select! {
        () = done.cancelled() => false,
        () = tokio::time::sleep_until(moment) => true,
    }
}

/// Maintenance that failed is done again next time; it never ends a worker.
fn report(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "{what}");
    }
}

impl Shared {
    async fn checks_in(&self, done: &CancellationToken) {
        let (mut next, mut seen) = (Instant::now(), None);
        loop {
            tokio::select! {
                come = has_come(next, done) => {
                    if !come {
                        return;
                    }
                    let checked_in = self.check_in(false).await;
                    seen = checked_in.is_ok().then(Instant::now);
                    report("the worker could not check in", checked_in);
                    next = Instant::now() + jittered(CHECK_IN);
                }
                // Not where that it cannot is what there is to say.
                () = self.own_log.more(), if seen.is_some() => {
                    next = seen.map_or(next, |seen| next.min(seen + SAID));
                }
            }
        }
    }

    async fn recovers(&self, done: &CancellationToken) {
        let mut next = Instant::now();
        while has_come(next, done).await {
            report("leases that ran out could not be recovered", self.recover(done).await);
            next = Instant::now() + jittered(self.config.recovery);
        }
    }

    async fn prunes(&self, done: &CancellationToken) {
        let mut next = Instant::now() + jittered(PRUNE);
        while has_come(next, done).await {
            report("what was kept long enough could not be removed", self.prune(done).await);
            next = Instant::now() + jittered(PRUNE);
        }
    }

    async fn check_in(&self, leaving: bool) -> Result<()> {
        let stats = &self.stats;
        let ended =
            [&stats.succeeded, &stats.failed, &stats.cancelled, &stats.retried, &stats.released, &stats.lost];
        let info = WorkerInfo {
            running: self.load.running.load(Ordering::Relaxed),
            processed: ended.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            log: self.own_log.told(),
            ..self.info.clone()
        };
        let request = CheckIn { worker: self.id, info, lost_after: CHECK_IN * 4, leaving };
        let answer = self.store.backend().check_in(self.store.deadline(), request).await?;
        if answer.stop {
            tracing::info!("somebody asked this worker to stop");
            self.end_by(EndedBy::Stopped);
        }
        Ok(())
    }

    async fn recover(&self, done: &CancellationToken) -> Result<()> {
        let limits = self.store.limits();
        let limit = BATCH.min(limits.page).min(limits.batch);
        while !done.is_cancelled() {
            let expired = self.store.backend().expired(self.store.deadline(), Expired { limit }).await?;
            let found = expired.len();
            if found == 0 {
                return Ok(());
            }
            let decide = |lease: crate::backend::ExpiredLease| {
                let Decision { verdict, failure } = after_expiry(&lease, &self.config.retry, fastrand::f64());
                tracing::warn!(job = %lease.job, attempt = lease.attempt, becomes = verdict.name(), "a lease ran out");
                Settlement { job: lease.job, token: lease.token, verdict, failure }
            };
            let settlements: Vec<Settlement> = expired.into_iter().map(decide).collect();
            crate::fail_point!("recover::before_send");
            let answers = self
                .store
                .backend()
                .recover(self.store.deadline(), Recover { settlements: settlements.clone() })
                .await?;
            for (settlement, answer) in settlements.iter().zip(&answers) {
                if *answer != Answer::Lost {
                    self.hear_of_lost(settlement.job, &settlement.verdict);
                }
            }
            let recovered = answers.iter().filter(|answer| **answer != Answer::Lost).count();
            metrics::counter!("leasehold_leases_recovered_total").increment(recovered as u64);
            // Where none could be taken back, others are at it, or hold them locked.
            if found < limit || recovered == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn prune(&self, done: &CancellationToken) -> Result<()> {
        let limit = BATCH.min(self.store.limits().page);
        while !done.is_cancelled() {
            let request = Prune { limit, workers_after: FORGET_WORKERS };
            if !self.store.backend().prune(self.store.deadline(), request).await?.more {
                return Ok(());
            }
        }
        Ok(())
    }
}
