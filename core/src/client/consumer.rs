use std::collections::{BTreeSet, VecDeque};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::asked::Asked;
use super::held::{Abandoned, HeldJob};
use super::known;
use super::rates::Rates;
use super::recover::recovers;
use super::store::Store;
use super::wake::{Wake, jittered};
use crate::backend::{Claim, KindRule, Settle, Settlement, TagRule};
use crate::error::{ErrorKind, Result};
use crate::id::WorkerId;
use crate::job::LeasedJob;
use crate::limits;
use crate::name::{Kind, QueueName, Tag};
use crate::policy::RetryPolicy;

/// How many jobs are given back in one call.
const BATCH: usize = 1_000;

/// Takes jobs by hand, one after the other.
///
/// ```no_run
/// # async fn example(queue: leasehold_core::Queue) -> leasehold_core::Result<()> {
/// let mut consumer = queue.consumer();
/// while let Some(held) = consumer.next().await? {
///     println!("{}", held.job().kind);
///     held.complete(None).await?;
/// }
/// consumer.close().await
/// # }
/// ```
pub struct Consumer {
    store: Store,
    worker: WorkerId,
    queues: Vec<QueueName>,
    kinds: KindRule,
    tags: TagRule,
    lease: Duration,
    poll: Duration,
    prefetch: usize,
    policy: RetryPolicy,
    rates: Rates,
    /// How often it has looked.
    turn: usize,
    /// How often lost leases are looked for.
    recovery: Duration,
    /// What does so, once it takes jobs.
    recovers: Option<AbortOnDropHandle<()>>,
    /// A claim that was not answered yet.
    asked: Option<Asked>,
    /// What was claimed and not taken, and when it was asked for.
    ready: VecDeque<(LeasedJob, Instant)>,
    abandoned: Abandoned,
}

impl Consumer {
    pub(super) fn new(store: Store, queue: QueueName) -> Self {
        Self {
            rates: Rates::new(&store),
            store,
            worker: WorkerId::generate(),
            queues: vec![queue],
            kinds: KindRule::Any,
            tags: TagRule::Any,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            prefetch: 1,
            policy: RetryPolicy::default(),
            turn: 0,
            recovery: Duration::from_secs(5),
            recovers: None,
            asked: None,
            ready: VecDeque::new(),
            abandoned: Abandoned::default(),
        }
    }

    /// Takes from this queue too, and if its name ends in `/`, from all queues under it. Defaults to the one it was made by.
    #[must_use]
    pub fn queue(mut self, queue: QueueName) -> Self {
        self.queues.push(queue);
        self
    }

    /// Takes only these kinds. Defaults to any.
    #[must_use]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.kinds = KindRule::Only(kinds.into_iter().collect());
        self
    }

    /// Takes only jobs with all of these tags. Defaults to any.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags = TagRule::JobHasAll(tags.into_iter().collect::<BTreeSet<_>>());
        self
    }

    /// Sets the lease of jobs that have none of their own. Defaults to 30 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how often to look where no event tells of a job. Defaults to 1 s, give or take a fifth.
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets how many jobs are claimed in one call. Each lease begins then; one that is not fresh any more when its
    /// job is taken is renewed, and a job that was lost meanwhile is skipped. Defaults to 1.
    #[must_use]
    pub fn prefetch(mut self, jobs: usize) -> Self {
        self.prefetch = jobs.max(1);
        self
    }

    /// Sets when failed jobs are tried again. Defaults to [`RetryPolicy::default`].
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how often to look for jobs whose leases ran out, those of others among them, to give them out again (clause C3):
    /// for as long as this consumer lives, from its first use on. All that take jobs by clones of one [`Store`] look together.
    /// Defaults to 5 s, give or take a fifth.
    #[must_use]
    pub fn recovery(mut self, interval: Duration) -> Self {
        self.recovery = interval.clamp(*limits::INTERVAL.start(), *limits::INTERVAL.end());
        self
    }

    /// The next job, if one is due. Dropping the future loses nothing: the next call goes on from there.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn next(&mut self) -> Result<Option<HeldJob>> {
        self.give_back().await?;
        if self.recovers.is_none() {
            self.recovers = Some(recovers(self.store.clone(), self.recovery, self.policy.clone()));
        }
        let mut dry = 0;
        loop {
            let fresh = self.ready.is_empty();
            let mut more = false;
            if fresh {
                more = self.look().await?;
            }
            while let Some(mut held) = self.take_ready() {
                if held.is_held().await? {
                    return Ok(Some(held));
                }
            }
            dry = if fresh && !more { dry + 1 } else { 0 };
            if dry >= self.store.pages(&self.queues) {
                // A program that ends now may be all that ever looks.
                self.store.recover_in_turn(self.recovery, &self.policy).await;
                return Ok(None);
            }
        }
    }

    /// Claims from its queues: first from those that have a rate, as far as that allows. Answers whether something stood in
    /// the way of jobs that may be due.
    async fn look(&mut self) -> Result<bool> {
        if let Some(asked) = self.asked.take().filter(Asked::may_still_hold) {
            return self.claim(asked).await;
        }
        self.rates.look().await;
        let (meant, mut more, mut failed) = (self.store.meant(&self.queues).await, false, None);
        self.turn = self.turn.wrapping_add(1);
        for (queues, rated) in self.rates.apart(meant, self.turn) {
            let permit = match queues.first() {
                Some(queue) if rated => match self.rates.permit(queue, self.prefetch).await {
                    Ok(Some(permit)) => Some(permit),
                    Ok(None) => continue,
                    // Others go on; it is told if they have nothing.
                    Err(error) => {
                        failed = Some(error);
                        continue;
                    }
                },
                _ => None,
            };
            let mut claim = Claim::new(self.worker, queues, self.prefetch, self.lease);
            claim.kinds = self.kinds.clone();
            claim.tags = self.tags.clone();
            let asked = permit
                .map_or_else(|| Asked::now(claim.clone()), |permit| Asked::under(permit, claim.clone()));
            more |= self.claim(asked).await?;
            if !self.ready.is_empty() {
                return Ok(more);
            }
        }
        failed.map_or(Ok(more), Err)
    }

    async fn claim(&mut self, asked: Asked) -> Result<bool> {
        let (claim, at, deadline) = (asked.claim.clone(), asked.at, asked.deadline(&self.store));
        // Kept until it is answered: this future may be dropped at any point (clause E4).
        self.asked = Some(asked);
        let answer = self.store.backend().claim(deadline, claim).await;
        let unknown = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unknown);
        let asked = self.asked.take_if(|_| !unknown);
        let claimed = answer?;
        for aside in &claimed.set_aside {
            tracing::error!(job = ?aside.job, why = aside.why, "a record cannot be read and was set aside");
        }
        let given = claimed.jobs.len();
        self.ready.extend(claimed.jobs.into_iter().map(|leased| (leased, at)));
        if let Some(mut asked) = asked {
            asked.answered(given).await;
        }
        Ok(!claimed.set_aside.is_empty() || claimed.next_due == Some(Duration::ZERO))
    }

    fn take_ready(&mut self) -> Option<HeldJob> {
        let (leased, asked_at) = self.ready.pop_front()?;
        let (policy, abandoned) = (self.policy.clone(), self.abandoned.clone());
        Some(HeldJob::new(self.store.clone(), leased, asked_at, policy, abandoned))
    }

    /// The next job; waits until one is due. Events make this quick, polling makes it sure.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn wait(&mut self) -> Result<HeldJob> {
        let mut wake = Wake::new(self.store.backend().clone(), known::heard(&self.queues));
        loop {
            wake.listen().await;
            if let Some(held) = self.next().await? {
                return Ok(held);
            }
            let poll = self.rates.room_in().map_or(self.poll, |room| room.min(self.poll));
            let poll = self.store.poll(&self.queues, jittered(poll));
            wake.wait(poll, |event| self.store.may_wait(&self.queues, event)).await;
        }
    }

    /// An endless stream of jobs. An error is an item; asking again goes on.
    pub fn stream(&mut self) -> impl Stream<Item = Result<HeldJob>> + Send + '_ {
        futures::stream::unfold(self, |consumer| async {
            let item = consumer.wait().await;
            Some((item, consumer))
        })
    }

    /// Gives back what was claimed and not taken, and what was dropped while held.
    ///
    /// # Errors
    /// Those named at [`Store`]; the jobs are then taken back when their leases run out.
    pub async fn close(mut self) -> Result<()> {
        if let Some(asked) = self.asked.take().filter(Asked::may_still_hold) {
            self.claim(asked).await?;
        }
        while let Some(held) = self.take_ready() {
            drop(held);
        }
        self.give_back().await
    }

    async fn give_back(&mut self) -> Result<()> {
        let most = BATCH.min(self.store.limits().batch);
        loop {
            let settlements: Vec<_> = self.abandoned().iter().take(most).cloned().collect();
            let count = settlements.len();
            if count == 0 {
                return Ok(());
            }
            self.store.backend().settle(self.store.deadline(), Settle { settlements }).await?;
            // What was dropped meanwhile stands behind them.
            self.abandoned().drain(..count);
        }
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<Settlement>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("worker", &self.worker)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}
