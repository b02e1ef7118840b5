use std::sync::Arc;

use super::consumer::Consumer;
use super::store::Store;
use crate::backend::{Counts, Enqueue, EnqueueAnswer, Enqueued, Pause, QueueCounts, QueueSettings, SetQueue};
use crate::error::Result;
use crate::id::JobId;
use crate::job::{IntoJob, NewJob};
use crate::name::QueueName;
use crate::policy::Rate;
use crate::telemetry;

/// How many jobs go to the store in one call of a bulk enqueue.
const CHUNK: usize = 1_000;

/// One queue of a [`Store`]. Clones share it.
#[derive(Debug, Clone)]
pub struct Queue {
    store: Store,
    name: QueueName,
    /// What jobs are given that do not say it themselves.
    defaults: Option<Arc<NewJob>>,
}

impl Queue {
    pub(super) fn new(store: Store, name: QueueName) -> Self {
        Self { store, name, defaults: None }
    }

    /// This queue, with other defaults for the jobs that are enqueued by this handle: priority, attempts, tags, time-out,
    /// retry policy and the like. What a job says itself counts before that, also where it says what holds anyway; tags
    /// and headers add up. Of what is set here id, queue, kind and payload mean nothing. Called again, it adds to what it was
    /// told before.
    ///
    /// ```
    /// # use leasehold_core::{NewJob, Store, Tag};
    /// # async fn example(store: Store, job: NewJob) -> leasehold_core::Result<()> {
    /// let mails = store.queue("mails")?.defaults(|job| job.max_attempts(3).priority(-5));
    /// mails.enqueue(job.clone()).await?; // three attempts, priority -5
    /// mails.enqueue(job.priority(0)).await?; // three attempts, priority 0
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// They are this handle's and its clones', and are not kept in the store. Jobs that are enqueued otherwise, such as in a
    /// transaction of the caller's, get them by [`job`](Self::job).
    #[must_use]
    pub fn defaults(mut self, defaults: impl FnOnce(NewJob) -> NewJob) -> Self {
        let before = self.defaults.take().map_or_else(NewJob::template, Arc::unwrap_or_clone);
        self.defaults = Some(Arc::new(defaults(before)));
        self
    }

    /// The job as this queue enqueues it, with its defaults: for whoever enqueues it in another way.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the arguments make no valid job.
    pub fn job(&self, job: impl IntoJob) -> Result<NewJob> {
        let job = job.into_job()?.queue(self.name.clone());
        Ok(match &self.defaults {
            Some(defaults) => job.or(defaults),
            None => job,
        })
    }

    /// The same queue without its defaults, and these.
    pub(super) fn without_defaults(mut self) -> (Self, Option<Arc<NewJob>>) {
        let defaults = self.defaults.take();
        (self, defaults)
    }

    /// Its name.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// The store it is in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Enqueues one job and returns its id, or that of the job that holds its unique key.
    ///
    /// # Errors
    /// Those named at [`Store`]. After an [`Unknown`](crate::ErrorKind::Unknown) the same [`NewJob`] may be
    /// enqueued again: that leaves one job.
    pub async fn enqueue(&self, job: impl IntoJob) -> Result<JobId> {
        Ok(self.submit(job).await?.job)
    }

    /// Enqueues one job and tells whether it is new.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue).
    pub async fn submit(&self, job: impl IntoJob) -> Result<Enqueued> {
        let mut answers = self.send(vec![self.job(job)?]).await?;
        let answer = answers.pop().ok_or_else(|| {
            crate::Error::new(crate::ErrorKind::Internal, "the store answered nothing for a job; report this")
        })?;
        match answer.answer {
            EnqueueAnswer::Refused(error) => Err(error),
            _ => Ok(answer),
        }
    }

    /// Enqueues many jobs, at most a thousand per call to the store, and answers one item per job, in order.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue), for the whole. What was sent before stays; enqueuing the same
    /// [`NewJob`]s again leaves one job each, while mere arguments become new jobs.
    pub async fn enqueue_all<J: IntoJob>(&self, jobs: impl IntoIterator<Item = J>) -> Result<Vec<Enqueued>> {
        let limits = self.store.limits();
        let most = CHUNK.min(limits.batch).max(1);
        let (mut answers, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
        for job in jobs {
            let job = self.job(job)?;
            let size = job.payload.len();
            if chunk.len() == most || (bytes + size > limits.batch_bytes && !chunk.is_empty()) {
                answers.append(&mut self.send(std::mem::take(&mut chunk)).await?);
                bytes = 0;
            }
            bytes += size;
            chunk.push(job);
        }
        if !chunk.is_empty() {
            answers.append(&mut self.send(chunk).await?);
        }
        Ok(answers)
    }

    async fn send(&self, mut jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        telemetry::send(&mut jobs, self.store.limits());
        let answers = self.store.backend().enqueue(self.store.deadline(), Enqueue { jobs }).await?;
        self.store.hear_of(&self.name);
        Ok(answers)
    }

    /// How many jobs it has, by state.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn counts(&self) -> Result<QueueCounts> {
        let request = Counts { queues: Some(vec![self.name.clone()]) };
        let found = self.store.backend().counts(self.store.deadline(), request).await?.pop();
        Ok(found.unwrap_or_else(|| QueueCounts::empty(self.name.clone())))
    }

    /// How it behaves.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn settings(&self) -> Result<QueueSettings> {
        let queues = self.store.queues().await?;
        let found = queues.into_iter().find(|record| record.queue == self.name);
        Ok(found.map(|record| record.settings).unwrap_or_default())
    }

    /// Says how it behaves from now on, in all that [`QueueSettings`] have. Of two who do so at once the later one wins;
    /// the methods below change one thing in what they find.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a rate of 0 or with a span out of range; those named at
    /// [`Store`].
    pub async fn set(&self, settings: QueueSettings) -> Result<()> {
        let request = SetQueue { queue: self.name.clone(), settings };
        self.store.backend().set_queue(self.store.deadline(), request).await
    }

    /// Gives out nothing more until it is resumed; running jobs go on (clause C10). One whose name ends in `/` keeps shut
    /// what lies under it as well.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn pause(&self, by: impl Into<String>, reason: impl Into<String>) -> Result<()> {
        let pause = Some(Pause { by: by.into(), reason: reason.into() });
        self.set(QueueSettings { pause, ..self.settings().await? }).await
    }

    /// Ends a pause. A queue under it that was paused by itself stays so.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn resume(&self) -> Result<()> {
        self.set(QueueSettings { pause: None, ..self.settings().await? }).await
    }

    /// Lets at most `limit` of its jobs begin in any span of the length `per`, over the whole fleet, or any number of them
    /// again (clause F8). Jobs over the rate wait in their order, lose no attempt, and hold up no other queue.
    ///
    /// Workers and consumers that run hear of it within five seconds, where there are events at once; until then they are
    /// given nothing from this queue. A job counts when it is claimed. What a worker that died had leave to claim is lost
    /// to the rate for three times as long as a call may take, and a span.
    ///
    /// # Errors
    /// Those of [`set`](Self::set).
    pub async fn set_rate(&self, rate: Option<Rate>) -> Result<()> {
        self.set(QueueSettings { rate, ..self.settings().await? }).await
    }

    /// Takes jobs of this queue by hand; of one whose name ends in `/`, those of all queues under it too.
    pub fn consumer(&self) -> Consumer {
        Consumer::new(self.store.clone(), self.name.clone())
    }
}
