use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, TryStreamExt};
use uuid::Uuid;

use super::flows::Cache;
use super::known::Known;
use super::queue::Queue;
use crate::backend::{
    Backend, Capabilities, Counts, Cursor, Description, Durability, Event, Filter, Find, List, Order, Page,
    QueueCounts, QueueRecord, Watch, WorkerRecord, Workers,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, WorkerId};
use crate::job::JobRecord;
use crate::layer;
use crate::limits::Limits;
use crate::name::QueueName;
use crate::time::{Deadline, Timestamp};

/// How many jobs one call of a longer list asks for.
const PAGE: usize = 500;

/// A store of jobs, whichever it is. Clones share it.
///
/// Every call checks its input, is traced, is repeated where it failed for a moment, and has answered by its
/// deadline. So every method may fail with [`InvalidInput`](ErrorKind::InvalidInput),
/// [`TooLarge`](ErrorKind::TooLarge) and the transient kinds; only others are named with a method.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    limits: Limits,
    patience: Duration,
    known: Arc<Known>,
    flows: Arc<Cache>,
}

impl Store {
    /// A store on `backend`, behind the [standard layers](layer::standard), with the default limits.
    pub fn new(backend: impl Backend) -> Self {
        Self::with_limits(Arc::new(backend), Limits::default())
    }

    /// A store on `backend`, behind the standard layers, with these limits.
    pub fn with_limits(backend: Arc<dyn Backend>, limits: Limits) -> Self {
        let (backend, patience) = (layer::standard(backend, limits.clone()), Deadline::DEFAULT);
        Self { backend, limits, patience, known: Arc::default(), flows: Arc::default() }
    }

    /// Sets how long a call may take. Defaults to 5 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The backend behind its layers.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// What is known of flows that go on.
    pub(crate) fn flow_cache(&self) -> &Cache {
        &self.flows
    }

    /// How large things may be.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The deadline of a call that begins now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    /// Makes the store ready: creates or migrates what is missing. Any number of processes may do so at once.
    ///
    /// # Errors
    /// [`Incompatible`](ErrorKind::Incompatible) if the store is of a newer version or not ours;
    /// [`Denied`](ErrorKind::Denied) without the rights.
    pub async fn setup(&self) -> Result<()> {
        // A migration may take longer than any other call.
        self.backend.setup(Deadline::after(self.patience.max(Duration::from_mins(1)))).await
    }

    /// What this store is and can do.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn describe(&self) -> Result<Description> {
        self.backend.describe(self.deadline()).await
    }

    /// Refuses a store that promises less than `least` (clause P1).
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it does.
    pub async fn require_durability(&self, least: Durability) -> Result<()> {
        let Capabilities { durability, .. } = self.describe().await?.capabilities;
        if durability >= least {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "this store promises {durability} and {least} is required; change its settings, or ask for less"
            ),
        ))
    }

    /// The hour by the store's clock.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn now(&self) -> Result<Timestamp> {
        self.backend.now(self.deadline()).await
    }

    /// The handle of a queue, which need not exist yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `name` is no valid [`QueueName`].
    pub fn queue<N>(&self, name: N) -> Result<Queue>
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
    {
        Ok(Queue::new(self.clone(), name.try_into()?))
    }

    /// Every known queue with its settings, by name.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn queues(&self) -> Result<Vec<QueueRecord>> {
        self.backend.queues(self.deadline()).await
    }

    /// The job of this id, if there is one.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if its record cannot be read.
    pub async fn find(&self, job: JobId) -> Result<Option<JobRecord>> {
        Ok(self.find_all(vec![job]).await?.pop().flatten())
    }

    /// The jobs of these ids: one item per id, in order.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if a record cannot be read.
    pub async fn find_all(&self, jobs: Vec<JobId>) -> Result<Vec<Option<JobRecord>>> {
        self.backend.find(self.deadline(), Find { ids: jobs }).await
    }

    /// A page of the jobs that match, newest first; go on from [`Page::next`].
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn list(&self, filter: Filter, after: Option<Cursor>, limit: usize) -> Result<Page> {
        self.backend.list(self.deadline(), List { filter, order: Order::NewestFirst, after, limit }).await
    }

    /// All jobs that match, in this order, a page of the store at a time. Records that cannot be read are left
    /// out; [`list`](Self::list) names them. An error ends the stream.
    pub fn list_all(
        &self,
        filter: Filter,
        order: Order,
    ) -> impl Stream<Item = Result<JobRecord>> + Send + use<> {
        self.list_pages(filter, order, PAGE)
    }

    /// The same, so many in one call.
    pub(super) fn list_pages(
        &self,
        filter: Filter,
        order: Order,
        page: usize,
    ) -> impl Stream<Item = Result<JobRecord>> + Send + use<> {
        let (from, limit) = (Some((self.clone(), None)), page.min(self.limits().page));
        let pages = futures::stream::try_unfold(from, move |from| {
            let filter = filter.clone();
            async move {
                let Some((store, after)) = from else { return Ok::<_, Error>(None) };
                let page = store.backend.list(store.deadline(), List { filter, order, after, limit }).await?;
                let next = page.next.map(|next| (store, Some(next)));
                Ok(Some((futures::stream::iter(page.jobs.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten()
    }

    /// The counts of all queues, by state.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn counts(&self) -> Result<Vec<QueueCounts>> {
        self.backend.counts(self.deadline(), Counts { queues: None }).await
    }

    /// The workers, newest first; go on after the last one's id.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn workers(&self, after: Option<WorkerId>, limit: usize) -> Result<Vec<WorkerRecord>> {
        self.backend.workers(self.deadline(), Workers { after, limit }).await
    }

    /// The newest workers, so many at most, page by page.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn newest_workers(&self, most: usize) -> Result<Vec<WorkerRecord>> {
        let mut found: Vec<WorkerRecord> = Vec::new();
        loop {
            let limit = self.limits().page.min(most - found.len());
            let page = self.workers(found.last().map(|last| last.worker), limit).await?;
            let is_last = page.len() < limit;
            found.extend(page);
            if is_last || found.len() >= most {
                return Ok(found);
            }
        }
    }

    /// The worker of this id, if it is known.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn worker(&self, worker: WorkerId) -> Result<Option<WorkerRecord>> {
        // The newest of those that are older than the next id.
        let next = Uuid::from_u128(worker.as_uuid().as_u128().saturating_add(1));
        let found = self.workers(Some(WorkerId::from_uuid(next)), 1).await?;
        Ok(found.into_iter().find(|record| record.worker == worker))
    }

    /// What happens in all queues: hints, of which any may be missing (clause F3). Log lines are not told of:
    /// [`follow`](Self::follow) them.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the store has no events.
    pub async fn watch(&self) -> Result<BoxStream<'static, Event>> {
        self.backend.watch(self.deadline(), Watch::default()).await
    }
}
