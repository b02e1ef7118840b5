use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::held::Entry;
use super::shared::Shared;
use crate::backend::{Claim, Claimed, Event, KindRule};
use crate::client::{Asked, Wake, jittered};
use crate::error::ErrorKind;
use crate::job::LeasedJob;
use crate::policy::{Backoff, prefetch};

/// The longest wait after a claim that the store did not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The shortest wait for a job that becomes due soon.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Fills free slots by batched claims until the worker stops.
pub(super) async fn fetch(shared: Arc<Shared>, ready: mpsc::UnboundedSender<(LeasedJob, Arc<Entry>)>) {
    let mut wake = Wake::new(shared.store.backend().clone(), Some(shared.queues.clone()));
    let mut failures = 0;
    let mut unknown = None;
    while let Some(free) = shared.room_or_stop().await {
        wake.listen().await;
        // Asked before the store is, so that nothing that goes in between is missed.
        let gone = shared.held.gone.notified();
        let idle = shared.held.len() == 0;
        let asked = unknown.take().filter(Asked::may_still_hold).unwrap_or_else(|| shared.ask(free));
        // Not dropped when the worker stops: what the store has given out is to be given back at once.
        match shared.store.backend().claim(shared.store.deadline(), asked.claim.clone()).await {
            Ok(claimed) => {
                crate::fail_point!("claim::acted");
                failures = 0;
                if shared.config.until_idle && idle && claimed.jobs.is_empty() {
                    shared.stopping.cancel();
                    return;
                }
                let wait = shared.wait_after(&claimed, asked.claim.limit);
                shared.hold(claimed, asked.at, &ready);
                let Some(wait) = wait else { continue };
                tokio::select! {
                    () = shared.stopping.cancelled() => {}
                    // The last job to go may have been what an idle worker waits for.
                    () = gone, if shared.config.until_idle => {}
                    () = wake.wait(wait, |event| matches!(event, Event::Waiting { .. })) => {}
                }
            }
            Err(error) => {
                failures += 1;
                let (first, cap) = (Duration::from_millis(100), LONGEST_PAUSE);
                let wait = Backoff::Exponential { first, factor: 2.0, cap, jitter: 0.5 }
                    .delay(failures, fastrand::f64());
                tracing::warn!(%error, ?wait, "no jobs could be claimed; trying again");
                unknown = (error.kind() == ErrorKind::Unknown).then_some(asked);
                // However many events tell of jobs meanwhile: asking more often mends nothing.
                tokio::select! {
                    () = shared.stopping.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
    if let Some(asked) = unknown.filter(Asked::may_still_hold) {
        // To be given back at once, rather than be taken for crashes when the leases run out.
        if let Ok(claimed) = shared.store.backend().claim(shared.store.deadline(), asked.claim).await {
            shared.hold(claimed, asked.at, &ready);
        }
    }
}

impl Shared {
    /// Waits until a claim is worth its round trip, and returns how many jobs it should ask for; none once
    /// the worker stops.
    async fn room_or_stop(&self) -> Option<usize> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            free = self.room() => Some(free),
        }
    }

    async fn room(&self) -> usize {
        loop {
            let changed = self.load.room.notified();
            if let Some(free) = self.free() {
                return free;
            }
            changed.await;
        }
    }

    /// How many jobs a claim should ask for, if it is worth its round trip.
    pub(super) fn free(&self) -> Option<usize> {
        let running = self.load.running.load(Ordering::Acquire);
        let waiting = self.load.waiting.load(Ordering::Acquire);
        let concurrency = self.config.concurrency;
        let wanted =
            concurrency.saturating_add(prefetch(concurrency, self.load.mean_run(), self.config.prefetch));
        let most = self.store.limits().batch;
        let free = wanted.saturating_sub(running + waiting).min(most);
        let slot_is_empty = waiting == 0 && running < concurrency;
        (free > 0 && (slot_is_empty || free >= wanted / 2 || free == most)).then_some(free)
    }

    fn ask(&self, limit: usize) -> Asked {
        let mut claim = Claim::new(self.id, self.queues.clone(), limit, self.config.lease);
        claim.kinds = KindRule::Only(self.kinds.clone());
        claim.tags = self.config.tags.clone();
        claim.min_priority = self.config.min_priority;
        Asked::now(claim)
    }

    /// How long to wait before the next claim: not at all while there is more than was asked for.
    fn wait_after(&self, claimed: &Claimed, asked: usize) -> Option<Duration> {
        if claimed.jobs.len() >= asked {
            return None;
        }
        let poll = jittered(self.config.poll);
        Some(claimed.next_due.map_or(poll, |due| poll.min(due.max(SHORTEST_WAIT))))
    }

    fn hold(
        &self,
        claimed: Claimed,
        asked_at: Instant,
        ready: &mpsc::UnboundedSender<(LeasedJob, Arc<Entry>)>,
    ) {
        for aside in &claimed.set_aside {
            tracing::error!(job = ?aside.job, why = aside.why, "a record cannot be read and was set aside");
        }
        self.load.waiting.fetch_add(claimed.jobs.len(), Ordering::AcqRel);
        for held in self.held.add(claimed.jobs, asked_at) {
            // The channel is bounded by the slots that were claimed for; it is closed only after this service.
            let _ = ready.send(held);
        }
    }
}
