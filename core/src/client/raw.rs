use std::ops::{Range, RangeInclusive};

use futures::TryStreamExt;

use super::queue::Queue;
use super::raw_set::{RawSet, RawSorted, RawTimed};
use crate::backend::{Action, Filter, Order};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::job::{Bundle, JobRecord, Keep, NewJob, Payload, State, Terms};
use crate::limits;
use crate::name::Kind;
use crate::time::Timestamp;

/// How many payloads a record has at most, if nobody says.
const PER_RECORD: usize = 1_000;
/// The most that may be said.
const MOST_PER_RECORD: usize = 10_000;
/// How many records of a list are read to count their payloads.
const COUNTED: usize = 200;
/// How many payloads a look into a queue reads.
const LOOKED_AT: usize = 10_000;
/// How many slices a graph may have.
const SLICES: RangeInclusive<usize> = 1..=10_000;
/// How many records are read at once where each may be large.
const PAGE: usize = 20;

/// A queue of bare payloads, for volume: nothing is kept of one that succeeds. Made by [`Queue::raw`].
///
/// Workers take them by [`handle_raw`](crate::worker::WorkerBuilder::handle_raw). Give them a queue of their own.
#[derive(Debug, Clone)]
pub struct Raw {
    pub(super) queue: Queue,
    pub(super) kind: Kind,
    template: NewJob,
}

impl Queue {
    /// This queue as one of bare payloads, which are handled as jobs of `kind`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `kind` is no valid name, or longer than 126 bytes.
    pub fn raw(&self, kind: &str) -> Result<Raw> {
        let kind = Kind::new(kind)?;
        Bundle::kind(&kind)?;
        let (queue, defaults) = self.clone().without_defaults();
        let mut template = NewJob::new(kind.clone(), Payload::EMPTY);
        if let Some(defaults) = defaults {
            template = template.or(&defaults);
        }
        template.options.retention.succeeded = Keep::For(std::time::Duration::ZERO);
        template.options.unique = None;
        Ok(Raw { queue, kind, template })
    }
}

impl Raw {
    /// Changes the options of its jobs, beginning with the [defaults](Queue::defaults) of the queue: priority, tags, attempts, time-out, retry policy and the like. Id, payload, due
    /// time and unique key are its own. Defaults to those of any job, but keeps nothing of what succeeds.
    ///
    /// ```
    /// # fn example(queue: leasehold_core::Queue) -> leasehold_core::Result<()> {
    /// let clicks = queue.raw("click")?.with(|job| job.max_attempts(3).priority(-10)).list();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with(mut self, options: impl FnOnce(NewJob) -> NewJob) -> Self {
        let changed = options(self.template.clone());
        self.template.options = changed.options;
        self.template.options.unique = None;
        self
    }

    /// Payloads as they come, many to a record: the fastest kind.
    pub fn list(self) -> RawList {
        RawList { raw: self, per_record: PER_RECORD }
    }

    /// Each payload once while it waits.
    pub fn set(self) -> RawSet {
        RawSet::new(self)
    }

    /// Each payload once while it waits, the one with the lowest score first.
    pub fn sorted(self) -> RawSorted {
        RawSorted::new(self)
    }

    /// Each payload once while it waits, due at its time.
    pub fn timed(self) -> RawTimed {
        RawTimed::new(self)
    }

    pub(super) fn job(&self, payload: Payload) -> NewJob {
        let mut job = NewJob::new(self.kind.clone(), payload).queue(self.queue.name().clone());
        job.options = self.template.options.clone();
        job
    }

    /// The waiting records of these kinds.
    pub(super) fn waiting(&self, kinds: Vec<Kind>) -> Filter {
        Filter {
            queues: Some(vec![self.queue.name().clone()]),
            kinds: Some(kinds),
            states: Some(vec![State::Scheduled, State::Queued]),
            ..Filter::default()
        }
    }

    /// The first so many waiting records of a kind, in the order they were taken in.
    pub(super) async fn first(&self, kind: Kind, most: usize) -> Result<Vec<JobRecord>> {
        use futures::StreamExt;
        let filter = self.waiting(vec![kind]);
        self.queue.store().list_all(filter, Order::OldestFirst).take(most).try_collect().await
    }

    pub(super) async fn clear(&self, kinds: Vec<Kind>) -> Result<u64> {
        let mut bulk = self.queue.store().amend_all(self.waiting(kinds), Action::Delete).await?;
        let mut gone = 0;
        while let Some(batch) = bulk.next().await? {
            gone += batch.len() as u64;
        }
        Ok(gone)
    }
}

/// Payloads as they come: see [`Raw::list`].
///
/// What a producer pushes at once is packed into few records, each of which is claimed, kept alive and settled as one.
/// So nothing is lost in a crash, and what a crash repeats is a tenth of a second's work of each record. A payload
/// that fails becomes a job of its own.
#[derive(Debug, Clone)]
pub struct RawList {
    raw: Raw,
    per_record: usize,
}

impl RawList {
    /// Sets how many payloads one record has at most, from 1 to 10,000. A worker runs the payloads of one record together,
    /// so fewer spread better, and more cost less. Defaults to 1,000.
    #[must_use]
    pub fn per_record(mut self, payloads: usize) -> Self {
        self.per_record = payloads.clamp(1, MOST_PER_RECORD);
        self
    }

    /// Adds one payload, in a record of its own.
    ///
    /// # Errors
    /// Those of [`push_many`](Self::push_many).
    pub async fn push(&self, payload: impl Into<Payload>) -> Result<()> {
        self.push_many([payload]).await.map(drop)
    }

    /// Adds payloads, and returns the ids of the records that carry them.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge) for a payload that does not fit into a record, before anything is sent;
    /// those of [`Queue::enqueue_all`]. After an [`Unknown`](crate::ErrorKind::Unknown) some may be there: whoever must not
    /// add them twice [packs](Self::pack) them first.
    pub async fn push_many<P: Into<Payload>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Vec<JobId>> {
        let answers = self.raw.queue.enqueue_all(self.pack(payloads)?).await?;
        Ok(answers.into_iter().map(|answer| answer.job).collect())
    }

    /// Packs payloads into records for [`Queue::enqueue_all`]. However often these are enqueued, each is there once.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge) for a payload that does not fit into a record.
    pub fn pack<P: Into<Payload>>(&self, payloads: impl IntoIterator<Item = P>) -> Result<Vec<NewJob>> {
        let options = &self.raw.template.options;
        let (max_attempts, crash_budget) = (options.max_attempts, options.crash_budget);
        let head = Bundle::head(&Terms { max_attempts, crash_budget, timeout: options.timeout })?;
        let room = self.raw.queue.store().limits().payload_bytes.saturating_sub(head.len());
        let (mut records, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
        for payload in payloads {
            let payload = payload.into();
            let size = Bundle::size(&payload);
            if size > room {
                let text =
                    format!("a payload has {} bytes; in a raw queue it may have {}", payload.len(), room - 4);
                return Err(Error::new(crate::ErrorKind::TooLarge, text));
            }
            if open.len() == self.per_record || bytes + size > room {
                records.push(self.record(Bundle::write(&head, &open)?, open.len())?);
                (open, bytes) = (Vec::new(), 0);
            }
            bytes += size;
            open.push(payload);
        }
        if !open.is_empty() {
            records.push(self.record(Bundle::write(&head, &open)?, open.len())?);
        }
        Ok(records)
    }

    /// A record, which may be attempted often enough for each of its payloads to be the one that ends the worker.
    fn record(&self, payload: Payload, payloads: usize) -> Result<NewJob> {
        let mut job = self.raw.job(payload);
        job.kind = Bundle::kind(&self.raw.kind)?;
        let more = |few: u32| few.saturating_add(payloads as u32).min(limits::ATTEMPTS);
        job.options.max_attempts = more(job.options.max_attempts);
        job.options.crash_budget = more(job.options.crash_budget);
        job.options.timeout = None;
        Ok(job)
    }

    /// How many payloads wait. Of long queues only the first two hundred records are looked at, and the count says so.
    ///
    /// # Errors
    /// Those named at [`Store`](crate::Store).
    pub async fn count(&self) -> Result<RawCount> {
        let records = self.read(COUNTED + 1).await?;
        let payloads =
            |record: &JobRecord| Bundle::read(&record.payload).map_or(0, |b| b.payloads.len() as u64);
        let exact = records.len() <= COUNTED;
        Ok(RawCount { payloads: records.iter().take(COUNTED).map(payloads).sum(), exact })
    }

    /// The first payloads that wait, at most so many.
    ///
    /// # Errors
    /// Those named at [`Store`](crate::Store).
    pub async fn first(&self, most: usize) -> Result<Vec<Payload>> {
        let mut found = Vec::new();
        let mut records = self.records();
        while found.len() < most
            && let Some(record) = records.try_next().await?
        {
            found.extend(Bundle::read(&record.payload).map(|bundle| bundle.payloads).unwrap_or_default());
        }
        found.truncate(most);
        Ok(found)
    }

    /// Removes all that waits, in records or as jobs of their own, and tells how many records and jobs these were. One
    /// payload alone cannot be removed from a list.
    ///
    /// # Errors
    /// Those named at [`Store`](crate::Store).
    pub async fn clear(&self) -> Result<u64> {
        self.raw.clear(vec![Bundle::kind(&self.raw.kind)?, self.raw.kind.clone()]).await
    }

    async fn read(&self, most: usize) -> Result<Vec<JobRecord>> {
        use futures::StreamExt;
        self.records().take(most).try_collect().await
    }

    fn records(&self) -> futures::stream::BoxStream<'static, Result<JobRecord>> {
        use futures::StreamExt;
        let kinds = Bundle::kind(&self.raw.kind).into_iter().collect();
        let store = self.raw.queue.store();
        store.list_pages(self.raw.waiting(kinds), Order::OldestFirst, PAGE).boxed()
    }
}

/// How many payloads wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawCount {
    /// So many.
    pub payloads: u64,
    /// Whether these are all; else they are at least so many.
    pub exact: bool,
}

/// How many payloads have their score or time in which slice of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    /// Those below the range.
    pub before: u64,
    /// Those in each slice, in order.
    pub slices: Vec<u64>,
    /// Those above the range.
    pub after: u64,
    /// Whether all were looked at; else the first ten thousand, in the order they were added.
    pub all: bool,
}

impl Graph {
    pub(super) async fn of(raw: &Raw, range: Range<Timestamp>, slices: usize) -> Result<Self> {
        // Wider than an i64, which has no room for the length of the longest range.
        let (from, to) = (i128::from(range.start.as_millis()), i128::from(range.end.as_millis()));
        if !SLICES.contains(&slices) || to <= from {
            let most = SLICES.end();
            return Err(Error::invalid(format!(
                "a graph needs a range that is not empty, and from 1 to {most} slices"
            )));
        }
        let records = raw.first(raw.kind.clone(), LOOKED_AT + 1).await?;
        let mut graph = Self { slices: vec![0; slices], all: records.len() <= LOOKED_AT, ..Self::default() };
        for record in records.iter().take(LOOKED_AT) {
            let at = i128::from(record.due.as_millis());
            let place = (at - from) * slices as i128 / (to - from);
            let slot = match usize::try_from(place) {
                _ if at < from => &mut graph.before,
                Ok(place) if place < slices => &mut graph.slices[place],
                _ => &mut graph.after,
            };
            *slot += 1;
        }
        Ok(graph)
    }
}
