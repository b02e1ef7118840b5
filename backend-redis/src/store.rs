//! The store, and one forwarding line per operation.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::authoring::calls::bounded;
use leasehold_core::backend::{
    Admit, Admitted, Amend, Amended, Answer, AppendLogs, Capabilities, CheckIn, CheckedIn, Claim, Claimed,
    Counts, DeleteRegister, Description, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find, List,
    LogPage, Page, Prune, Pruned, PutRegister, QueueCounts, QueueRecord, ReadLogs, Recover, RegisterPage,
    Registers, Renew, Renewed, SetQueue, Settle, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{Backend, Deadline, Error, JobRecord, Limits, NewJob, Result, Timestamp};
use redis::Pipeline;

use crate::config::Config;
use crate::enqueue::Enqueueing;
use crate::error::{BACKEND, Done};
use crate::scripts::HOUR;
use crate::session::{Db, moment};
use crate::settle::By;
use crate::{
    admit, claim, control, enqueue, inspect, logs, recover, registers, renew, schema, settle, watch, workers,
};

/// Jobs on a Redis or Valkey server. Clones share everything.
///
/// Must be opened inside a tokio runtime, and works for as long as that runtime does.
#[derive(Clone)]
pub struct Redis(Arc<Db>);

impl Redis {
    /// Reaches the server that a URL names; see [`Config::from_url`] and [`with`](Self::with).
    ///
    /// # Errors
    /// Those of [`Config::from_url`] and of [`with`](Self::with).
    pub async fn connect(url: &str) -> Result<Self> {
        Self::with(Config::from_url(url)?).await
    }

    /// Reaches a server. Whether it can be used, [`setup`](Backend::setup) finds out.
    ///
    /// # Errors
    /// [`Config`](leasehold_core::ErrorKind::Config) if the URL or the namespace cannot be used;
    /// [`Denied`](leasehold_core::ErrorKind::Denied) if the server refuses the credentials; transient ones, after 5 s
    /// at most, if no server answers.
    pub async fn with(config: Config) -> Result<Self> {
        let db = Db::new(config.checked()?).map_err(|fault| named("connect")(fault.told(false)))?;
        let store = Self(Arc::new(db));
        let ping = redis::cmd("PING");
        store.call("connect", Deadline::default(), false, store.0.send(&ping)).await?;
        Ok(store)
    }

    /// Adds to the caller's own pipeline what takes jobs in (clause P5). Make the pipeline
    /// [`atomic`](Pipeline::atomic), and the jobs are there if and only if it was run; in a cluster all its keys must be in
    /// the slot of the namespace.
    ///
    /// What became of each job, [`Enqueueing::read`] tells by what the pipeline returns for this part. A server takes
    /// nothing back: if another command of the pipeline fails, the jobs are taken in nevertheless.
    ///
    /// # Errors
    /// [`InvalidInput`](leasehold_core::ErrorKind::InvalidInput) and
    /// [`TooLarge`](leasehold_core::ErrorKind::TooLarge) by the default limits.
    pub fn enqueue_in(&self, pipeline: &mut Pipeline, jobs: Vec<NewJob>) -> Result<Enqueueing> {
        let mut request = Enqueue { jobs };
        request.check(&Limits::default()).map_err(named("enqueue_in"))?;
        let made = enqueue::command(&self.0, &request.jobs);
        let (command, enqueueing) = made.map_err(|fault| named("enqueue_in")(fault.told(true)))?;
        pipeline.add_command(command);
        Ok(enqueueing)
    }

    /// Ends the streams of events and closes the connections, also for all clones. Later calls fail as
    /// [`Closed`](leasehold_core::ErrorKind::Closed).
    pub fn close(&self) {
        self.0.close();
    }

    /// Runs an operation within its deadline (clause E3). What is under way when it passes is unknown if it writes
    /// (clause E1).
    async fn call<T>(
        &self,
        operation: &'static str,
        deadline: Deadline,
        writes: bool,
        work: impl Future<Output = Done<T>>,
    ) -> Result<T> {
        let work = async { work.await.map_err(|fault| fault.told(writes)) };
        bounded(deadline, writes, work).await.map_err(named(operation))
    }
}

/// Names the operation and the backend in an error.
fn named(operation: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| error.during(operation).on(BACKEND)
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.0.config).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Redis {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        let facts = self.call("describe", deadline, false, schema::facts(&self.0)).await?;
        let mut capabilities = Capabilities::none(facts.durability);
        capabilities.atomic_batch = true;
        capabilities.transactions = true;
        (capabilities.events, capabilities.shared_events) = (true, true);
        (capabilities.strict_limits, capabilities.exact_counts) = (true, true);
        capabilities.own_clock = true;
        let (version, location) = (facts.version, self.0.config.location());
        Ok(Description { backend: BACKEND.into(), version, location, capabilities })
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        self.call("setup", deadline, true, schema::setup(&self.0)).await
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        self.call("now", deadline, false, self.0.run(&HOUR, |_| {})).await.map(moment)
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        self.call("enqueue", deadline, true, enqueue::enqueue(&self.0, request)).await
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        self.call("admit", deadline, true, admit::admit(&self.0, &request)).await
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        self.call("claim", deadline, true, claim::claim(&self.0, request)).await
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        self.call("renew", deadline, true, renew::renew(&self.0, request)).await
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        self.call("settle", deadline, true, settle::settle(&self.0, &request.settlements, By::Holder)).await
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        self.call("expired", deadline, true, recover::expired(&self.0, request)).await
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        self.call("recover", deadline, true, recover::recover(&self.0, &request)).await
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        self.call("append_logs", deadline, true, logs::append_logs(&self.0, &request)).await
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        self.call("read_logs", deadline, false, logs::read_logs(&self.0, request)).await
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        self.call("find", deadline, false, inspect::find(&self.0, request)).await
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        self.call("list", deadline, false, inspect::list(&self.0, request)).await
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        self.call("counts", deadline, false, inspect::counts(&self.0, request)).await
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        self.call("amend", deadline, true, control::amend(&self.0, request)).await
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        self.call("set_queue", deadline, true, control::set_queue(&self.0, request)).await
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.call("queues", deadline, false, control::queues(&self.0)).await
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        self.call("prune", deadline, true, control::prune(&self.0, request)).await
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        self.call("check_in", deadline, true, workers::check_in(&self.0, request)).await
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.call("workers", deadline, false, workers::workers(&self.0, request)).await
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.call("stop_workers", deadline, true, workers::stop_workers(&self.0, request)).await
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        self.call("put_register", deadline, true, registers::put_register(&self.0, request)).await
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        self.call("registers", deadline, false, registers::registers(&self.0, request)).await
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        self.call("delete_register", deadline, true, registers::delete_register(&self.0, request)).await
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        self.call("watch", deadline, false, watch::watch(&self.0, request)).await
    }
}
