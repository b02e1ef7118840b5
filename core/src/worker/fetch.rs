use std::collections::HashSet;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::TryChunksError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::run::EndedBy;
use super::shared::Shared;
use crate::backend::{Action, Amend, Claim, Claimed, Event, Filter, Order, Select};
use crate::client::{Asked, Rates, Wake, jittered, known};
use crate::error::{ErrorKind, Result};
use crate::job::{Due, State};
use crate::name::QueueName;
use crate::policy::{Backoff, prefetch};

/// Where the jobs of a claim go.
type Ready = mpsc::UnboundedSender<Vec<Attempt>>;

/// The longest wait after a claim that the store did not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The shortest wait for a job that becomes due soon.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Fills free slots by batched claims until the worker claims no more.
pub(super) async fn fetch(shared: Arc<Shared>, ready: Ready) {
    if shared.config.redo_failed {
        shared.redo_failed().await;
    }
    let mut wake = Wake::new(shared.store.backend().clone(), known::heard(&shared.queues));
    if shared.has_roots() {
        // What was known before may be a second old.
        shared.store.look_for_queues(Duration::ZERO).await;
    }
    let (mut failures, mut turns) = (0, 0_usize);
    let rates = Rates::new(&shared.store);
    let mut asking = Asking { rates, unknown: None, ready };
    // How many looks in a row found nothing, of as many as it takes to ask for all queues under its roots.
    let mut dry = 0;
    while let Some(free) = shared.room_or_enough().await {
        wake.listen().await;
        // Asked before the store is, so that nothing that goes in between is missed.
        let (gone, led) = (shared.held.gone.notified(), shared.heard.led.notified());
        // What ends is heard of before it is no longer held.
        let idle = shared.held.len() == 0 && shared.heard.is_quiet();
        turns = turns.wrapping_add(1);
        match shared.take(free, turns, &mut asking).await {
            Ok(taken) => {
                failures = 0;
                if taken.all || taken.filled {
                    continue;
                }
                dry = if taken.found == 0 && taken.next_due != Some(Duration::ZERO) { dry + 1 } else { 0 };
                if shared.config.until_idle && idle && dry > 0 && !taken.held_back {
                    let others_are_left = dry < shared.store.pages(&shared.queues);
                    if others_are_left || shared.has_news(&asking.rates).await {
                        continue;
                    }
                    shared.end_by(EndedBy::Idle);
                    return;
                }
                let poll = shared.store.poll(&shared.queues, jittered(shared.config.poll));
                let soonest = taken.next_due.into_iter().chain(asking.rates.room_in()).min();
                let wait = soonest.map_or(poll, |due| poll.min(due.max(SHORTEST_WAIT)));
                let changed = AtomicBool::new(false);
                let wanted = |event: &Event| {
                    let is_set = matches!(event, Event::QueueSet { .. });
                    changed.fetch_or(is_set, Ordering::Relaxed);
                    is_set || shared.store.may_wait(&shared.queues, event)
                };
                tokio::select! {
                    () = shared.enough.cancelled() => {}
                    // The last job to go may have been what an idle worker waits for.
                    () = gone, if shared.config.until_idle => {}
                    // What was let go may be due, and not every store tells of it.
                    () = led => {}
                    () = wake.wait(wait, wanted) => {}
                }
                if changed.into_inner() {
                    asking.rates.changed();
                }
            }
            Err(error) => {
                failures += 1;
                let (first, cap) = (Duration::from_millis(100), LONGEST_PAUSE);
                let wait = Backoff::Exponential { first, factor: 2.0, cap, jitter: 0.5 }
                    .delay(failures, fastrand::f64());
                tracing::warn!(%error, ?wait, "no jobs could be claimed; trying again");
                // However many events tell of jobs meanwhile: asking more often mends nothing.
                tokio::select! {
                    () = shared.enough.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
    if let Some(asked) = asking.unknown.take().filter(Asked::may_still_hold) {
        // To be given back at once, rather than be taken for crashes when the leases run out.
        let _ = shared.claim(asked, &mut asking).await;
    }
}

/// What goes on from one claim to the next.
struct Asking {
    rates: Rates,
    /// A claim that was not answered.
    unknown: Option<Asked>,
    /// Where claimed jobs go.
    ready: Ready,
}

/// What came of a turn.
#[derive(Default)]
struct Taken {
    jobs: usize,
    /// Jobs, and records that were taken out of the way.
    found: usize,
    /// Whether there were as many as were asked for, or not all was asked, so that there may be more.
    all: bool,
    next_due: Option<Duration>,
    /// Whether a queue was left out because its rate has no room.
    held_back: bool,
    /// Whether all was used that a rate had room for, so that it has to be asked when there is more.
    filled: bool,
}

impl Shared {
    fn has_roots(&self) -> bool {
        self.queues.iter().any(QueueName::is_root)
    }

    /// Looks at the queues, and tells whether others came to light that may lie under its roots, or other rates.
    async fn has_news(&self, rates: &Rates) -> bool {
        let came = self.store.look_for_queues(Duration::ZERO).await;
        came && self.has_roots() || rates.are_others()
    }

    /// Sends failed jobs round again, however long the store takes to answer.
    async fn redo_failed(&self) {
        loop {
            let redone = tokio::select! {
                () = self.enough.cancelled() => return,
                redone = self.try_redo_failed() => redone,
            };
            let Err(error) = redone else { return };
            tracing::warn!(%error, "failed jobs could not be sent round again; trying again");
            tokio::select! {
                () = self.enough.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn try_redo_failed(&self) -> Result<()> {
        let filter = Filter {
            queues: Some(self.store.meant(&self.queues).await),
            states: Some(vec![State::Failed]),
            enqueued_until: Some(self.store.now().await?),
            ..Filter::default()
        };
        let failed = self.store.list_all(filter, Order::OldestFirst);
        let ours = failed.try_filter(|job| ready(self.kinds.takes(&job.kind)));
        let mut batches = pin!(ours.map_ok(|job| job.id).try_chunks(self.store.limits().page));
        while let Some(ids) = batches.try_next().await.map_err(|TryChunksError(_, error)| error)? {
            let redo = Action::Requeue { due: Due::Now };
            let request = Amend { select: Select::Ids(ids), action: redo, preview: false };
            self.store.backend().amend(self.store.deadline(), request).await?;
        }
        Ok(())
    }

    /// Waits until a claim is worth its round trip, and returns how many jobs it should ask for; none once
    /// the worker claims no more.
    async fn room_or_enough(&self) -> Option<usize> {
        tokio::select! {
            biased;
            () = self.enough.cancelled() => None,
            free = self.room() => free,
        }
    }

    /// How many more jobs it may take, if that is bounded.
    fn left(&self) -> Option<usize> {
        self.config.max_jobs.map(|most| most.saturating_sub(self.load.taken.load(Ordering::Acquire)))
    }

    async fn room(&self) -> Option<usize> {
        loop {
            let changed = self.load.room.notified();
            // Asked before how many are left: what is given back meanwhile is one more left by the time it waits no more.
            let some_wait = self.load.waiting.load(Ordering::Acquire) > 0;
            match (self.left(), self.free()) {
                // What waits may yet be given back, and others be taken in its place.
                (Some(0), _) if some_wait => {}
                (Some(0), _) => {
                    self.end_by(EndedBy::MaxJobs);
                    return None;
                }
                (left, Some(free)) => return Some(left.map_or(free, |left| free.min(left))),
                (_, None) => {}
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

    /// Asks its queues in turn for as many jobs as there is room for. A claim whose answer was lost comes first, and
    /// alone.
    async fn take(self: &Arc<Self>, free: usize, turn: usize, asking: &mut Asking) -> Result<Taken> {
        if let Some(asked) = asking.unknown.take().filter(Asked::may_still_hold) {
            let taken = self.claim(asked, asking).await?;
            return Ok(Taken { all: true, ..taken });
        }
        asking.rates.look().await;
        let (mut taken, mut dry) = (Taken::default(), HashSet::new());
        for (queues, most) in self.config.choice.turn(&self.queues, free, turn) {
            let meant = self.store.meant(&queues).await;
            for (queues, rated) in asking.rates.apart(meant, turn) {
                let limit = most.min(free.saturating_sub(taken.jobs));
                if limit == 0 || dry.contains(&queues) {
                    continue;
                }
                let Some(asked) = self.ask(queues.clone(), rated, limit, asking).await else {
                    taken.held_back = true;
                    continue;
                };
                let Taken { jobs, found, all, next_due, .. } = self.claim(asked, asking).await?;
                taken.filled |= rated && all;
                taken.jobs += jobs;
                taken.found += found;
                taken.next_due = taken.next_due.into_iter().chain(next_due).min();
                if !all {
                    dry.insert(queues);
                }
            }
        }
        taken.all = taken.found >= free;
        Ok(taken)
    }

    /// What to ask for; none if a rate does not allow for it now.
    async fn ask(
        &self,
        queues: Vec<QueueName>,
        rated: bool,
        limit: usize,
        asking: &mut Asking,
    ) -> Option<Asked> {
        let rated = queues.first().filter(|_| rated).cloned();
        let mut claim = Claim::new(self.id, queues, limit, self.config.lease);
        claim.kinds = self.kinds.clone();
        claim.tags = self.config.tags.clone();
        claim.min_priority = self.config.min_priority;
        let Some(queue) = rated else { return Some(Asked::now(claim)) };
        let permit = asking.rates.permit(&queue, limit).await.unwrap_or_else(|error| {
            tracing::warn!(%error, %queue, "the rate of a queue could not be asked; others go on");
            None
        });
        permit.map(|permit| Asked::under(permit, claim))
    }

    /// Not dropped when the worker stops: what the store has given out is to be given back at once.
    async fn claim(self: &Arc<Self>, mut asked: Asked, asking: &mut Asking) -> Result<Taken> {
        match self.store.backend().claim(asked.deadline(&self.store), asked.claim.clone()).await {
            Ok(claimed) => {
                crate::fail_point!("claim::acted");
                let jobs = claimed.jobs.len();
                let found = jobs + claimed.set_aside.len();
                let (all, next_due) = (found >= asked.claim.limit, claimed.next_due);
                self.hold(claimed, asked.at, &asking.ready);
                asked.answered(jobs).await;
                Ok(Taken { jobs, found, all, next_due, ..Taken::default() })
            }
            Err(error) => {
                asking.unknown = (error.kind() == ErrorKind::Unknown).then_some(asked);
                Err(error)
            }
        }
    }

    fn hold(self: &Arc<Self>, claimed: Claimed, asked_at: Instant, ready: &Ready) {
        for aside in &claimed.set_aside {
            tracing::error!(job = ?aside.job, why = aside.why, "a record cannot be read and was set aside");
        }
        self.load.taken.fetch_add(claimed.jobs.len(), Ordering::AcqRel);
        self.load.waiting.fetch_add(claimed.jobs.len(), Ordering::AcqRel);
        let entries = self.held.add(&claimed.jobs, asked_at);
        let attempt = |(leased, entry)| Attempt::new(leased, entry, self.clone());
        // What the channel holds is bounded by the slots that were claimed for; it is closed only after this service.
        let _ = ready.send(claimed.jobs.into_iter().zip(entries).map(attempt).collect());
    }
}
