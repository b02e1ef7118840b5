use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::run::EndedBy;
use super::shared::Shared;
use crate::backend::{CheckIn, Prune, Verdict, WorkerInfo};
use crate::client::jittered;
use crate::error::Result;

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
        let hear = |job, verdict: &Verdict| self.hear_of_lost(job, verdict);
        while !done.is_cancelled() && self.store.recover_some(&self.config.retry, hear).await? {}
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
