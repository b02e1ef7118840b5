use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::{Cause, Entry};
use super::shared::Shared;
use crate::backend::{Renew, Renewal, Renewed};
use crate::policy::LeaseTimes;
use crate::time::Deadline;

/// How long progress waits, so that many reports make one write.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// How many leases are renewed in one call.
const BATCH: usize = 1_000;

/// Renews the leases of all held jobs, and tells handlers to end whose lease is lost or whose job somebody
/// cancelled, until `done`.
pub(super) async fn heartbeat(shared: Arc<Shared>, done: CancellationToken) {
    let mut retry_at = Instant::now();
    loop {
        let held = shared.held.all();
        fence(&held);
        let reported = held.iter().any(|entry| entry.has_progress());
        let next = held.iter().filter(|e| e.cause() != Some(Cause::LeaseLost)).map(|e| e.renew_at()).min();
        let soon = reported.then(|| Instant::now() + PROGRESS_PAUSE);
        // A renewal that failed is not repeated at once; a fence that comes due meanwhile is not missed.
        let fence_at =
            held.iter().filter(|e| e.cause() != Some(Cause::LeaseLost)).map(|e| e.fence_at()).min();
        let at = match (next, soon) {
            (None, None) => None,
            (next, soon) => next.into_iter().chain(soon).min().map(|at| at.max(retry_at)),
        };
        let at = at.into_iter().chain(fence_at).min();
        tokio::select! {
            () = done.cancelled() => return,
            () = shared.held.changed.notified(), if !reported => continue,
            () = tokio::time::sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {}
        }
        let all = shared.held.all();
        fence(&all);
        if Instant::now() < retry_at {
            continue;
        }
        let due: Vec<_> = all.into_iter().filter(|entry| entry.is_due()).collect();
        for batch in due.chunks(BATCH) {
            if !shared.renew(batch).await {
                retry_at = Instant::now() + PROGRESS_PAUSE;
                break;
            }
        }
    }
}

/// Ends what could not be renewed in time, by our own clock alone (clause C2a).
fn fence(held: &[Arc<Entry>]) {
    let now = Instant::now();
    for entry in held.iter().filter(|entry| entry.fence_at() <= now) {
        if entry.cause() != Some(Cause::LeaseLost) {
            tracing::warn!(job = %entry.job, "the lease could not be renewed in time; its handler is stopped");
            entry.cancel(Cause::LeaseLost);
        }
    }
}

impl Entry {
    /// Whether it is to be renewed now: its moment has come or is so near that it can go along.
    fn is_due(&self) -> bool {
        if self.cause() == Some(Cause::LeaseLost) {
            return false;
        }
        let near = LeaseTimes::of(self.lease).renew / 4;
        self.has_progress() || self.renew_at() <= Instant::now() + near
    }
}

impl Shared {
    /// Renews these leases in one call; answers whether the store answered.
    async fn renew(&self, batch: &[Arc<Entry>]) -> bool {
        let asked_at = Instant::now();
        let renewals: Vec<Renewal> = batch
            .iter()
            .map(|entry| Renewal {
                job: entry.job,
                token: entry.token,
                lease: entry.lease,
                progress: entry.take_progress(),
            })
            .collect();
        let kept: Vec<_> = renewals.iter().map(|renewal| renewal.progress.clone()).collect();
        // The call must be back before the first of its leases has to be fenced.
        let until_fence =
            batch.iter().map(|entry| entry.fence_at()).min().map(|at| at.saturating_duration_since(asked_at));
        let patience =
            until_fence.unwrap_or(Deadline::DEFAULT).min(Deadline::DEFAULT).max(Duration::from_millis(1));
        match self.store.backend().renew(Deadline::after(patience), Renew { renewals }).await {
            Ok(answers) => {
                batch.iter().zip(answers).for_each(|(entry, answer)| renewed(entry, answer, asked_at));
                true
            }
            Err(error) => {
                tracing::warn!(%error, jobs = batch.len(), "leases could not be renewed; trying again");
                batch.iter().zip(kept).for_each(|(entry, progress)| entry.keep_progress(progress));
                false
            }
        }
    }
}

fn renewed(entry: &Entry, answer: Renewed, asked_at: Instant) {
    match answer {
        Renewed::Held { cancel_requested, .. } => {
            entry.renewed(asked_at);
            if cancel_requested && entry.cause().is_none() {
                entry.cancel(Cause::CancelRequested);
            }
        }
        Renewed::Lost if entry.is_settling() => {}
        Renewed::Lost => entry.cancel(Cause::LeaseLost),
    }
}
