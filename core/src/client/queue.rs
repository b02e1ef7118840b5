use super::consumer::Consumer;
use super::store::Store;
use crate::backend::{Counts, Enqueue, EnqueueAnswer, Enqueued, Pause, QueueCounts, QueueSettings, SetQueue};
use crate::error::Result;
use crate::id::JobId;
use crate::job::{IntoJob, NewJob};
use crate::name::QueueName;
use crate::telemetry;

/// How many jobs go to the store in one call of a bulk enqueue.
const CHUNK: usize = 1_000;

/// One queue of a [`Store`]. Clones share it.
#[derive(Debug, Clone)]
pub struct Queue {
    store: Store,
    name: QueueName,
}

impl Queue {
    pub(super) fn new(store: Store, name: QueueName) -> Self {
        Self { store, name }
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
        let mut answers = self.send(vec![job.into_job()?]).await?;
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
            let job = job.into_job()?;
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
        for job in &mut jobs {
            job.queue = self.name.clone();
        }
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

    /// Gives out nothing more until it is resumed; running jobs go on (clause C10). One whose name ends in `/` keeps shut
    /// what lies under it as well.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn pause(&self, by: impl Into<String>, reason: impl Into<String>) -> Result<()> {
        self.set(QueueSettings { pause: Some(Pause { by: by.into(), reason: reason.into() }) }).await
    }

    /// Ends a pause. A queue under it that was paused by itself stays so.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn resume(&self) -> Result<()> {
        self.set(QueueSettings::default()).await
    }

    async fn set(&self, settings: QueueSettings) -> Result<()> {
        let request = SetQueue { queue: self.name.clone(), settings };
        self.store.backend().set_queue(self.store.deadline(), request).await
    }

    /// Takes jobs of this queue by hand; of one whose name ends in `/`, those of all queues under it too.
    pub fn consumer(&self) -> Consumer {
        Consumer::new(self.store.clone(), self.name.clone())
    }
}
