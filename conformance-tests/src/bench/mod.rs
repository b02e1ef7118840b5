//! Where a case works: a fresh store, a clock that it moves by hand, and a short verb for each thing to do.
//!
//! A verb calls the raw backend and expects no more of the answer than its doc says.

mod dropping;
mod holding;
mod reaching;
mod showing;
mod storm;
mod words;

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backend::{Claim, Enqueue, Enqueued};
use leasehold_core::{
    Backend, Clock, Deadline, JobId, LeasedJob, ManualClock, NewJob, QueueName, Timestamp, WorkerId,
};

pub(crate) use self::dropping::drop_after;
pub(crate) use self::holding::{lines, settlement, token_of};
pub(crate) use self::storm::{CHAOS, Client, Storm, Time, drain, rage};
pub(crate) use self::words::*;
use crate::breach::{Done, Trouble};
use crate::harness::{CannotRun, Harness, Place};

/// A client of the store that a case judges. Clones are the same client.
#[derive(Clone)]
pub(crate) struct Bench {
    harness: Arc<dyn Harness>,
    place: Place,
    clock: ManualClock,
    backend: Arc<dyn Backend>,
    /// What the dice of the case were cast with.
    pub(crate) seed: u64,
    /// The worker in whose name it claims.
    pub(crate) worker: WorkerId,
}

/// Until when a call about so many items has to be answered: far longer than callers wait. How fast a store is, on a
/// machine that does other things too and among many that write at once, is not the law's.
pub(crate) fn in_time(items: usize) -> Deadline {
    const PATIENCE: Duration = Deadline::DEFAULT.saturating_mul(6);
    let each = Duration::from_millis(10).saturating_mul(u32::try_from(items).unwrap_or(u32::MAX));
    Deadline::after(PATIENCE.saturating_add(each))
}

impl Bench {
    pub(crate) fn new(harness: Arc<dyn Harness>, place: Place, backend: Arc<dyn Backend>, seed: u64) -> Self {
        let clock = place.clock.clone().unwrap_or_default();
        Self { harness, place, clock, backend, seed, worker: WorkerId::generate() }
    }

    /// Another client of the same store, which claims as another worker.
    pub(crate) async fn another(&self) -> Done<Self> {
        let opened = self.harness.open(&self.place).await;
        let backend = opened.map_err(|why| Trouble::Unmet(format!("no second handle: {why}")))?;
        Ok(Self::new(Arc::clone(&self.harness), self.place.clone(), backend, self.seed))
    }

    /// A client of a store of its own, with a clock of its own.
    pub(crate) async fn in_another_place(&self) -> Done<Self> {
        let place = Place::of(&self.place.name, &self.place.server);
        let opened = self.harness.open(&place).await;
        let backend = opened.map_err(|why| Trouble::Unmet(format!("no second store: {why}")))?;
        Ok(Self::new(Arc::clone(&self.harness), place, backend, self.seed))
    }

    /// So many clients of the same store, this one among them.
    pub(crate) async fn several(&self, count: usize) -> Done<Vec<Self>> {
        let mut clients = vec![self.clone()];
        while clients.len() < count {
            clients.push(self.another().await?);
        }
        Ok(clients)
    }

    /// So many clients of a store that is not there yet, all of which open it at once.
    pub(crate) async fn open_at_once(&self, count: usize) -> Done<Vec<Self>> {
        let place = Place { name: format!("{}_n", self.place.name), ..self.place.clone() };
        let mut opening = Vec::new();
        for _ in 0..count {
            let (harness, place, seed) = (Arc::clone(&self.harness), place.clone(), self.seed);
            opening.push(tokio::spawn(async move {
                let backend = harness.open(&place).await?;
                Ok::<_, CannotRun>(Self::new(harness, place, backend, seed))
            }));
        }
        let mut clients = Vec::new();
        for client in opening {
            let opened = client.await.map_err(|error| Trouble::Unmet(error.to_string()))?;
            clients.push(opened.map_err(|why| Trouble::Unmet(format!("one of {count} clients: {why}")))?);
        }
        Ok(clients)
    }

    /// A client of another store, beside this one, which goes by this clock or by its own.
    pub(crate) async fn beside(&self, clock: Option<ManualClock>) -> Done<Self> {
        let place = Place { name: format!("{}_p", self.place.name), clock, ..self.place.clone() };
        let opened = self.harness.open(&place).await;
        let backend = opened.map_err(|why| Trouble::Unmet(format!("no store beside this one: {why}")))?;
        Ok(Self::new(Arc::clone(&self.harness), place, backend, self.seed))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn harness(&self) -> &dyn Harness {
        &*self.harness
    }

    /// The same client on another backend, such as one that is recorded.
    pub(crate) fn on(&self, backend: Arc<dyn Backend>) -> Self {
        Self { backend, ..self.clone() }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn shared_backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend)
    }

    /// What the manual clock shows.
    pub(crate) fn hour(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the store's clock forward.
    pub(crate) fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// The clock that the store reads.
    pub(crate) fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Enqueues in one call.
    pub(crate) async fn enqueue(&self, jobs: impl IntoIterator<Item = NewJob>) -> Done<Vec<Enqueued>> {
        let request = Enqueue { jobs: jobs.into_iter().collect() };
        let asked = request.jobs.len();
        let answers = self.backend.enqueue(in_time(request.jobs.len()), request).await?;
        if answers.len() != asked {
            let answered = answers.len();
            return Err(Trouble::Unmet(format!("{asked} jobs were enqueued and {answered} answers came")));
        }
        Ok(answers)
    }

    /// Enqueues jobs of which each has to get in, and answers their ids.
    pub(crate) async fn add_all(&self, jobs: impl IntoIterator<Item = NewJob>) -> Done<Vec<JobId>> {
        let answers = self.enqueue(jobs).await?;
        match answers.iter().find(|answer| !answer.is_created()) {
            Some(other) => Err(Trouble::Unmet(format!("a new job was not taken in: {other:?}"))),
            None => Ok(answers.iter().map(|answer| answer.job).collect()),
        }
    }

    /// Enqueues a job which has to get in.
    pub(crate) async fn add(&self, job: NewJob) -> Done<JobId> {
        let id = job.id;
        self.add_all([job]).await?;
        Ok(id)
    }

    /// The claim that this client makes where a case does not say otherwise.
    pub(crate) fn asking(&self, limit: usize) -> Claim {
        Claim::new(self.worker, [QueueName::default()], limit, LEASE)
    }

    /// Claims from the queue `default`.
    pub(crate) async fn claim(&self, limit: usize) -> Done<Vec<LeasedJob>> {
        self.claim_as(self.asking(limit)).await
    }

    /// Claims from this queue.
    pub(crate) async fn claim_from(&self, queue: &QueueName, limit: usize) -> Done<Vec<LeasedJob>> {
        self.claim_as(Claim { queues: vec![queue.clone()], ..self.asking(limit) }).await
    }

    /// Claims as told; what is given must be no more than asked, and all of it readable.
    pub(crate) async fn claim_as(&self, claim: Claim) -> Done<Vec<LeasedJob>> {
        let limit = claim.limit;
        let claimed = self.backend.claim(in_time(claim.limit), claim).await?;
        if let Some(bad) = claimed.set_aside.first() {
            return Err(Trouble::Unmet(format!("a good record was set aside: {bad:?}")));
        }
        if claimed.jobs.len() > limit {
            let count = claimed.jobs.len();
            return Err(Trouble::Unmet(format!("{limit} jobs were asked for and {count} were given")));
        }
        Ok(claimed.jobs)
    }

    /// Claims one job, which has to be there.
    pub(crate) async fn take(&self) -> Done<LeasedJob> {
        let mut jobs = self.claim(1).await?;
        jobs.pop().ok_or_else(|| Trouble::Unmet("a job was due and none was given".into()))
    }

    /// Enqueues a plain job and claims it.
    pub(crate) async fn hold(&self) -> Done<LeasedJob> {
        self.hold_this(job()).await
    }

    /// Enqueues this job and claims it.
    pub(crate) async fn hold_this(&self, job: NewJob) -> Done<LeasedJob> {
        let id = job.id;
        let queue = job.queue.clone();
        self.add(job).await?;
        let mut jobs = self.claim_from(&queue, 1).await?;
        match jobs.pop() {
            Some(lease) if lease.job.id == id => Ok(lease),
            other => Err(Trouble::Unmet(format!("job {id} was due and this was given: {other:?}"))),
        }
    }

    /// Claims until nothing more is given, so many at a time.
    pub(crate) async fn claim_all(&self, at_a_time: usize) -> Done<Vec<LeasedJob>> {
        let mut all = Vec::new();
        loop {
            let jobs = self.claim(at_a_time).await?;
            if jobs.is_empty() {
                return Ok(all);
            }
            all.extend(jobs);
        }
    }
}
