use std::slice;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::{Cause, Entry};
use super::shared::Shared;
use crate::backend::{Renew, Renewal, Renewed};
use crate::error::{ErrorKind, Result};
use crate::job::Progress;
use crate::time::Deadline;

/// How many leases are renewed in one call.
const BATCH: usize = 1_000;

/// Renews the leases of all held jobs, and tells handlers to end whose lease is lost or whose job somebody
/// cancelled, until `done`.
pub(super) async fn heartbeat(shared: Arc<Shared>, done: CancellationToken) {
    // Under way beside each other: one that hangs holds up neither the others nor the fences.
    let mut renewals = FuturesUnordered::new();
    loop {
        *shared.held.plan() = None;
        let held = shared.held.all();
        held.iter().for_each(|entry| entry.fence());
        let at = held.iter().filter_map(|entry| entry.look_at()).min();
        *shared.held.plan() = at;
        tokio::select! {
            () = done.cancelled() => return,
            () = shared.held.changed.notified() => {}
            Some(()) = renewals.next() => {}
            () = tokio::time::sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                for batch in batches(shared.held.all(), BATCH.min(shared.store.limits().batch)) {
                    batch.iter().for_each(|entry| entry.renewing());
                    renewals.push(shared.renew(batch));
                }
            }
        }
    }
}

/// The entries that are to be renewed now, in batches of leases that end at about the same time: one that has
/// little time left makes its call a hasty one.
fn batches(held: Vec<Arc<Entry>>, most: usize) -> Vec<Vec<Arc<Entry>>> {
    let now = Instant::now();
    let mut due: Vec<_> = held.into_iter().filter(|entry| entry.is_due(now)).collect();
    due.sort_by_key(|entry| (entry.together(), entry.fence_at()));
    let mut batches: Vec<Vec<Arc<Entry>>> = Vec::new();
    for entry in due {
        match batches.last_mut() {
            Some(batch) if batch.len() < most.min(entry.together()) && batch[0].goes_with(&entry) => {
                batch.push(entry);
            }
            _ => batches.push(vec![entry]),
        }
    }
    batches
}

impl Entry {
    /// Whether it is to be renewed now: its moment has come or is so near that it can go along.
    fn is_due(&self, now: Instant) -> bool {
        let near = self.times.renew / 4;
        self.renew_at().is_some_and(|at| at <= now + near)
    }

    /// Whether the other, which ends later, may be renewed by the same call.
    fn goes_with(&self, other: &Self) -> bool {
        self.together() == other.together() && other.patience() <= 4 * self.patience()
    }

    /// How long its renewal may take: half of the time until its fence, so that one more fits in after a call
    /// that hung.
    fn patience(&self) -> Duration {
        let left = self.fence_at().saturating_duration_since(Instant::now());
        (left / 2).clamp(Duration::from_millis(1), Deadline::DEFAULT)
    }
}

impl Shared {
    /// Renews these leases, and writes the progress of their jobs with it.
    pub(super) async fn renew(&self, batch: Vec<Arc<Entry>>) {
        if let Err(error) = self.try_renew(&batch).await
            && error.is_refusal()
        {
            // What one handler reports must not cost the others their leases.
            for entry in &batch {
                self.renew_alone(entry).await;
            }
        }
    }

    async fn renew_alone(&self, entry: &Arc<Entry>) {
        if let Err(error) = self.try_renew(slice::from_ref(entry)).await
            && error.is_refusal()
        {
            tracing::warn!(job = %entry.job, %error, "the job's progress was refused and is dropped");
            if let Some((_, said)) = entry.take_progress() {
                entry.answered(said, None);
            }
            // An error is noted by the entry: it stays due.
            let _ = self.try_renew(slice::from_ref(entry)).await;
        }
    }

    async fn try_renew(&self, batch: &[Arc<Entry>]) -> Result<()> {
        let asked_at = Instant::now();
        let said: Vec<_> = batch.iter().map(|entry| entry.take_progress()).collect();
        let renewal = |(entry, said): (&Arc<Entry>, &Option<(Progress, u64)>)| Renewal {
            job: entry.job,
            token: entry.token,
            lease: entry.lease,
            progress: said.as_ref().map(|(progress, _)| progress.clone()),
        };
        let renewals: Vec<Renewal> = batch.iter().zip(&said).map(renewal).collect();
        let patience = batch.iter().map(|entry| entry.patience()).min().unwrap_or(Deadline::DEFAULT);
        match self.store.backend().renew(Deadline::after(patience), Renew { renewals }).await {
            Ok(answers) => {
                for ((entry, answer), said) in batch.iter().zip(answers).zip(said) {
                    if let Some((progress, said)) = said {
                        entry.answered(said, (answer != Renewed::Lost).then_some(progress));
                    }
                    renewed(entry, answer, asked_at);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, jobs = batch.len(), "leases could not be renewed; trying again");
                for (entry, said) in batch.iter().zip(said) {
                    entry.keep_progress(said.map(|(progress, _)| progress));
                    entry.not_renewed();
                    if error.kind() == ErrorKind::Unknown {
                        entry.not_answered(batch.len());
                    }
                }
                Err(error)
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
        // Its settlement has arrived, and the answer to that is on the way.
        Renewed::Lost if entry.is_settling() => entry.over(),
        Renewed::Lost => {
            entry.over();
            entry.cancel(Cause::LeaseLost);
        }
    }
}
