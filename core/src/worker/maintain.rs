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
    let start = Instant::now();
    let (mut check_in, mut recover, mut prune) = (start, start, start + jittered(PRUNE));
    let mut seen = None;
    loop {
        tokio::select! {
            () = done.cancelled() => break,
            () = tokio::time::sleep_until(check_in) => {
                let done = shared.check_in(false).await;
                seen = done.is_ok().then(Instant::now);
                report("the worker could not check in", done);
                check_in = Instant::now() + jittered(CHECK_IN);
            }
            // Not where that it cannot is what there is to say.
            () = shared.own_log.more(), if seen.is_some() => {
                check_in = seen.map_or(check_in, |seen| check_in.min(seen + SAID));
            }
            () = tokio::time::sleep_until(recover) => {
                report("leases that ran out could not be recovered", shared.recover().await);
                recover = Instant::now() + jittered(shared.config.recovery);
            }
            () = tokio::time::sleep_until(prune) => {
                report("what was kept long enough could not be removed", shared.prune().await);
                prune = Instant::now() + jittered(PRUNE);
            }
        }
    }
    tracing::info!("the worker has ended");
    report("the worker could not check out", shared.check_in(true).await);
}

/// Maintenance that failed is done again next time; it never ends a worker.
fn report(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "{what}");
    }
}

impl Shared {
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

    async fn recover(&self) -> Result<()> {
        let limits = self.store.limits();
        let limit = BATCH.min(limits.page).min(limits.batch);
        loop {
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
            let settlements = expired.into_iter().map(decide).collect();
            crate::fail_point!("recover::before_send");
            let answers =
                self.store.backend().recover(self.store.deadline(), Recover { settlements }).await?;
            let recovered = answers.iter().filter(|answer| **answer != Answer::Lost).count();
            metrics::counter!("leasehold_leases_recovered_total").increment(recovered as u64);
            if found < limit {
                return Ok(());
            }
        }
    }

    async fn prune(&self) -> Result<()> {
        let limit = BATCH.min(self.store.limits().page);
        loop {
            let request = Prune { limit, workers_after: FORGET_WORKERS };
            if !self.store.backend().prune(self.store.deadline(), request).await?.more {
                return Ok(());
            }
        }
    }
}
