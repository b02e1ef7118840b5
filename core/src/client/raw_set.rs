use std::ops::Range;
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::queue::Queue;
use super::raw::{Graph, Raw, RawCount};
use crate::backend::{AmendAnswer, EnqueueAnswer, Enqueued};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::job::{Due, NewJob, OnConflict, PUSHED_BACK, Payload, State, Unique, UniqueScope};
use crate::limits;
use crate::name::{Kind, UniqueKey};
use crate::time::Timestamp;

/// The moment that a score of 0 stands for: so far in the past that scores of either sign are due.
const ZERO_SCORE: i64 = 750_000_000_000;
/// The largest score, and less one the lowest: they stand for moments from 1970 to 2017.
const SCORES: Range<i64> = -ZERO_SCORE..ZERO_SCORE;
/// Of these are made the ids of what looks for payloads.
const LOOKING: &str = "leasehold raw look";

/// The job that holds a payload's key while somebody looks for it. By its id alone everybody knows what it is.
fn look_of(key: &UniqueKey) -> JobId {
    JobId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{LOOKING} {key}").as_bytes()))
}

impl Queue {
    /// Enqueues payloads that have keys. Where one is merely looked for, whoever looks finds nothing, be it still there or
    /// dead: the key is for the payload.
    pub(crate) async fn enqueue_keyed(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        let look = |job: &NewJob| job.options.unique.as_ref().map(|unique| look_of(&unique.key));
        let mut answers = self.enqueue_all(jobs.clone()).await?;
        loop {
            let in_the_way = |(job, answer): (&NewJob, &Enqueued)| {
                matches!(answer.answer, EnqueueAnswer::Held) && look(job) == Some(answer.job)
            };
            let pairs = jobs.iter().zip(&answers).enumerate();
            let again: Vec<_> = pairs.filter(|(_, pair)| in_the_way(*pair)).map(|(index, _)| index).collect();
            if again.is_empty() {
                return Ok(answers);
            }
            for index in &again {
                self.store().delete(answers[*index].job).await?;
            }
            let left: Vec<NewJob> = again.iter().map(|index| jobs[*index].clone()).collect();
            let answered = self.enqueue_all(left).await?;
            for (index, answer) in again.into_iter().zip(answered) {
                answers[index] = answer;
            }
        }
    }
}

/// Payloads of which each waits once: a job each, with a unique key that is made of the payload.
#[derive(Debug, Clone)]
struct Keyed(Raw);

impl Keyed {
    /// The payload's key: the SHA-256 of queue, kind and payload.
    fn key(&self, payload: &Payload) -> Result<UniqueKey> {
        let mut hash = Sha256::new();
        for part in [self.0.queue.name().as_str(), self.0.kind.as_str()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(payload.as_bytes());
        let digits = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        UniqueKey::new(format!("raw {digits}"))
    }

    fn job(&self, payload: Payload, due: Due, on_conflict: OnConflict) -> Result<NewJob> {
        let key = self.key(&payload)?;
        let unique = Unique::new(key, UniqueScope::UntilClaimed).on_conflict(on_conflict);
        let mut job = self.0.job(payload).unique_as(unique);
        job.due = due;
        Ok(job)
    }

    /// Adds jobs and tells how many are new.
    async fn push(&self, jobs: impl IntoIterator<Item = Result<NewJob>>) -> Result<u64> {
        let jobs = jobs.into_iter().collect::<Result<Vec<_>>>()?;
        let answers = self.0.queue.enqueue_keyed(jobs).await?;
        let mut new = 0;
        for Enqueued { answer, .. } in answers {
            match answer {
                EnqueueAnswer::Refused(error) => return Err(error),
                answer => new += u64::from(matches!(answer, EnqueueAnswer::Created)),
            }
        }
        Ok(new)
    }

    /// Removes a payload that waits. Whoever holds its key is told to whoever asks for it too, in the name of a job that
    /// nobody runs and that goes at once. Should it stay, for its maker has died, it goes when somebody next wants the key:
    /// it holds that for as long as it is there.
    async fn remove(&self, payload: Payload) -> Result<bool> {
        let key = self.key(&payload)?;
        let look = NewJob::new(self.looking()?, Payload::EMPTY).id(look_of(&key));
        let look = look.delay(limits::SPAN).unique(key, UniqueScope::UntilFinished);
        let Enqueued { job, answer } = self.0.queue.submit(look).await?;
        let gone = self.0.queue.store().delete(job).await?;
        Ok(matches!(answer, EnqueueAnswer::Held) && gone == AmendAnswer::Applied)
    }

    /// The kind of what looks for payloads.
    fn looking(&self) -> Result<Kind> {
        Kind::new(format!("{}?", self.0.kind))
    }

    /// From the queue's own counts, which are kept.
    async fn count(&self) -> Result<RawCount> {
        let counts = self.0.queue.counts().await?;
        let exact = self.0.queue.store().describe().await?.capabilities.exact_counts;
        Ok(RawCount { payloads: counts.of(State::Scheduled) + counts.of(State::Queued), exact })
    }

    async fn first(&self, most: usize) -> Result<Vec<(Payload, Timestamp)>> {
        let records = self.0.first(self.0.kind.clone(), most).await?;
        Ok(records.into_iter().map(|record| (record.payload, record.due)).collect())
    }

    async fn clear(&self) -> Result<u64> {
        let gone = self.0.clear(vec![self.0.kind.clone()]).await?;
        self.0.clear(vec![self.looking()?]).await?;
        Ok(gone)
    }
}

macro_rules! keyed {
    ($name:ident) => {
        impl $name {
            /// Removes a payload that waits, and tells whether it was there. One that runs is not removed.
            ///
            /// # Errors
            /// Those named at [`Store`](crate::Store).
            pub async fn remove(&self, payload: impl Into<Payload>) -> Result<bool> {
                self.0.remove(payload.into()).await
            }

            /// How many payloads wait, from the counts of the queue: it must have no other jobs. Exact where the store's
            /// counts are.
            ///
            /// # Errors
            /// Those named at [`Store`](crate::Store).
            pub async fn count(&self) -> Result<RawCount> {
                self.0.count().await
            }

            /// Removes all that waits, and tells how many.
            ///
            /// # Errors
            /// Those named at [`Store`](crate::Store).
            pub async fn clear(&self) -> Result<u64> {
                self.0.clear().await
            }
        }
    };
}

keyed!(RawSet);
keyed!(RawSorted);
keyed!(RawTimed);

/// Each payload once while it waits: see [`Raw::set`]. Once it is claimed the same payload may be added again.
#[derive(Debug, Clone)]
pub struct RawSet(Keyed);

impl RawSet {
    pub(super) fn new(raw: Raw) -> Self {
        Self(Keyed(raw))
    }

    /// Adds a payload, and tells whether it is new.
    ///
    /// # Errors
    /// Those of [`Queue::enqueue`](crate::Queue::enqueue).
    pub async fn push(&self, payload: impl Into<Payload>) -> Result<bool> {
        Ok(self.push_many([payload]).await? == 1)
    }

    /// Adds payloads, and tells how many are new.
    ///
    /// # Errors
    /// Those of [`Queue::enqueue_all`](crate::Queue::enqueue_all).
    pub async fn push_many<P: Into<Payload>>(&self, payloads: impl IntoIterator<Item = P>) -> Result<u64> {
        let job = |payload: P| self.0.job(payload.into(), Due::Now, OnConflict::Keep);
        self.0.push(payloads.into_iter().map(job)).await
    }

    /// Payloads that wait, at most so many, in the order they were added.
    ///
    /// # Errors
    /// Those named at [`Store`](crate::Store).
    pub async fn first(&self, most: usize) -> Result<Vec<Payload>> {
        Ok(self.0.first(most).await?.into_iter().map(|(payload, _)| payload).collect())
    }
}

/// Each payload once while it waits, the one with the lowest score first: see [`Raw::sorted`].
///
/// A score is a whole number from -750,000,000,000 up to, but without, 750,000,000,000. It is kept as a due time in the past,
/// which is what orders claims: within one priority, and before any other job of the queue. A payload that is tried again
/// has no score any more; it comes when its delay is over.
#[derive(Debug, Clone)]
pub struct RawSorted(Keyed);

impl RawSorted {
    pub(super) fn new(raw: Raw) -> Self {
        Self(Keyed(raw))
    }

    /// Adds a payload, or moves the score of one that waits. Tells whether it is new.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a score out of range; those of
    /// [`Queue::enqueue`](crate::Queue::enqueue).
    pub async fn push(&self, payload: impl Into<Payload>, score: i64) -> Result<bool> {
        Ok(self.push_many([(payload, score)]).await? == 1)
    }

    /// Adds payloads, or moves the scores of those that wait. Tells how many are new.
    ///
    /// # Errors
    /// Those of [`push`](Self::push).
    pub async fn push_many<P: Into<Payload>>(
        &self,
        payloads: impl IntoIterator<Item = (P, i64)>,
    ) -> Result<u64> {
        let job = |(payload, score): (P, i64)| {
            self.0.job(payload.into(), Due::At(moment(score)?), OnConflict::Replace)
        };
        self.0.push(payloads.into_iter().map(job)).await
    }

    /// Payloads that wait with their scores, at most so many, in the order they were added.
    ///
    /// # Errors
    /// Those named at [`Store`](crate::Store).
    pub async fn first(&self, most: usize) -> Result<Vec<(Payload, i64)>> {
        let found = self.0.first(most).await?.into_iter();
        Ok(found.map(|(payload, due)| (payload, due.as_millis() - ZERO_SCORE)).collect())
    }

    /// How many payloads have their scores in which slice of a range.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty range, or slices that are not from 1 to 10,000; those
    /// named at [`Store`](crate::Store).
    pub async fn graph(&self, scores: Range<i64>, slices: usize) -> Result<Graph> {
        let at = |score: i64| Timestamp::from_millis(score.saturating_add(ZERO_SCORE));
        Graph::of(&self.0.0, at(scores.start)..at(scores.end), slices).await
    }
}

/// The moment that stands for a score.
fn moment(score: i64) -> Result<Timestamp> {
    if SCORES.contains(&score) {
        return Ok(Timestamp::from_millis(ZERO_SCORE + score));
    }
    Err(Error::invalid(format!(
        "a score of {score} is out of range; it may be from {} up to {}",
        SCORES.start, SCORES.end
    )))
}

/// Each payload once while it waits, due at its time: see [`Raw::timed`].
#[derive(Debug, Clone)]
pub struct RawTimed(Keyed);

impl RawTimed {
    pub(super) fn new(raw: Raw) -> Self {
        Self(Keyed(raw))
    }

    /// Has each payload come back by itself so long after it is taken, however it went, unless it is
    /// [removed](Self::remove) or added again for another time. A span of more than a hundred years is taken for that
    /// long. Defaults to not coming back.
    #[must_use]
    pub fn push_back(mut self, after: Duration) -> Self {
        let after = after.min(limits::SPAN);
        self.0.0 = self.0.0.with(|job| job.header(PUSHED_BACK, after.as_millis().to_string()));
        self
    }

    /// Adds a payload, or moves the time of one that waits. Tells whether it is new.
    ///
    /// # Errors
    /// Those of [`Queue::enqueue`](crate::Queue::enqueue).
    pub async fn push(&self, payload: impl Into<Payload>, due: Due) -> Result<bool> {
        Ok(self.push_many([(payload, due)]).await? == 1)
    }

    /// Adds payloads, or moves the times of those that wait. Tells how many are new.
    ///
    /// # Errors
    /// Those of [`Queue::enqueue_all`](crate::Queue::enqueue_all).
    pub async fn push_many<P: Into<Payload>>(
        &self,
        payloads: impl IntoIterator<Item = (P, Due)>,
    ) -> Result<u64> {
        let job = |(payload, due): (P, Due)| self.0.job(payload.into(), due, OnConflict::Replace);
        self.0.push(payloads.into_iter().map(job)).await
    }

    /// Payloads that wait with their times, at most so many, in the order they were added.
    ///
    /// # Errors
    /// Those named at [`Store`](crate::Store).
    pub async fn first(&self, most: usize) -> Result<Vec<(Payload, Timestamp)>> {
        self.0.first(most).await
    }

    /// How many payloads have their times in which slice of a range.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty range, or slices that are not from 1 to 10,000; those
    /// named at [`Store`](crate::Store).
    pub async fn graph(&self, times: Range<Timestamp>, slices: usize) -> Result<Graph> {
        Graph::of(&self.0.0, times, slices).await
    }
}
