use std::collections::{BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use futures::Stream;

use super::held::{Abandoned, HeldJob};
use super::store::Store;
use super::wake::{Wake, jittered};
use crate::backend::{Claim, Event, KindRule, Settle, TagRule};
use crate::error::Result;
use crate::id::WorkerId;
use crate::job::LeasedJob;
use crate::name::{Kind, QueueName, Tag};
use crate::policy::RetryPolicy;

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
    ready: VecDeque<LeasedJob>,
    abandoned: Abandoned,
}

impl Consumer {
    pub(super) fn new(store: Store, queue: QueueName) -> Self {
        Self {
            store,
            worker: WorkerId::generate(),
            queues: vec![queue],
            kinds: KindRule::Any,
            tags: TagRule::Any,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            prefetch: 1,
            policy: RetryPolicy::default(),
            ready: VecDeque::new(),
            abandoned: Abandoned::default(),
        }
    }

    /// Takes from this queue too. Defaults to the one it was made by.
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

    /// Sets how many jobs are claimed in one call. Each lease begins then, so they should be short. Defaults
    /// to 1.
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

    /// The next job, if one is due.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn next(&mut self) -> Result<Option<HeldJob>> {
        self.give_back().await?;
        if self.ready.is_empty() {
            let mut claim = Claim::new(self.worker, self.queues.clone(), self.prefetch, self.lease);
            claim.kinds = self.kinds.clone();
            claim.tags = self.tags.clone();
            let claimed = self.store.backend().claim(self.store.deadline(), claim).await?;
            for aside in &claimed.set_aside {
                tracing::error!(job = ?aside.job, why = aside.why, "a record cannot be read and was set aside");
            }
            self.ready = claimed.jobs.into();
        }
        let held =
            |leased| HeldJob::new(self.store.clone(), leased, self.policy.clone(), self.abandoned.clone());
        Ok(self.ready.pop_front().map(held))
    }

    /// The next job; waits until one is due. Events make this quick, polling makes it sure.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn wait(&mut self) -> Result<HeldJob> {
        let mut wake = Wake::new(self.store.backend().clone(), Some(self.queues.clone()));
        loop {
            wake.listen().await;
            if let Some(held) = self.next().await? {
                return Ok(held);
            }
            wake.wait(jittered(self.poll), |event| matches!(event, Event::Waiting { .. })).await;
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
        for leased in std::mem::take(&mut self.ready) {
            drop(HeldJob::new(self.store.clone(), leased, RetryPolicy::default(), self.abandoned.clone()));
        }
        self.give_back().await
    }

    async fn give_back(&mut self) -> Result<()> {
        let settlements = std::mem::take(&mut *self.abandoned.lock().unwrap_or_else(PoisonError::into_inner));
        if settlements.is_empty() {
            return Ok(());
        }
        self.store.backend().settle(self.store.deadline(), Settle { settlements }).await.map(drop)
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
