//! The store, and one forwarding line per operation.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::authoring::calls::{bounded, in_part};
use leasehold_core::backend::{
    Admit, Admitted, Amend, Amended, Answer, AppendLogs, Capabilities, CheckIn, CheckedIn, Claim, Claimed,
    Counts, DeleteRegister, Description, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find, List,
    LogPage, Page, Prune, Pruned, PutRegister, QueueCounts, QueueRecord, ReadLogs, Recover, RegisterPage,
    Registers, Renew, Renewed, SetQueue, Settle, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{
    Backend, Deadline, Error, ErrorKind, JobRecord, Limits, NewJob, QueueName, Result, Timestamp,
};
use mongodb::ClientSession;

use crate::config::Config;
use crate::error::{BACKEND, Done};
use crate::session::{Db, WROTE};
use crate::settle::By;
use crate::{
    admit, claim, control, enqueue, inspect, logs, recover, registers, renew, schema, settle, watch, workers,
};

/// Jobs in a MongoDB database. Clones share everything.
///
/// Must be opened inside a tokio runtime, and works for as long as that runtime does.
#[derive(Clone)]
pub struct Mongo(Arc<Inner>);

struct Inner {
    config: Config,
    db: Arc<Db>,
}

impl Mongo {
    /// Reaches the server that a `mongodb://` or `mongodb+srv://` URL names, with defaults. See
    /// [`with`](Self::with).
    ///
    /// # Errors
    /// Those of [`with`](Self::with).
    pub async fn connect(url: &str) -> Result<Self> {
        Self::with(Config::new(url)).await
    }

    /// Reaches a server. Collections and indexes are made by [`setup`](Backend::setup).
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the URL or a name cannot be used; [`Denied`](ErrorKind::Denied) if the
    /// server refuses the credentials; transient ones, after the server selection time-out of the URL, which is
    /// 5 s by default, if no server answers.
    pub async fn with(config: Config) -> Result<Self> {
        let config = config.checked()?;
        let db = Arc::new(Box::pin(schema::connect(&config)).await.map_err(named("connect"))?);
        watch::start(&db);
        Ok(Self(Arc::new(Inner { config, db })))
    }

    /// The driver's client, for transactions of the caller's own that enqueue jobs
    /// ([`enqueue_in`](Self::enqueue_in)).
    pub fn client(&self) -> &mongodb::Client {
        &self.0.db.client
    }

    /// Takes jobs in inside the caller's own transaction, whose session is of this store's
    /// [`client`](Self::client): they are there if and only if the caller commits (clause P5).
    ///
    /// Commit by [`commit_and_wake`](Self::commit_and_wake). Capped collections take no writes in transactions, so
    /// after a commit of another kind workers find the jobs at their next poll, or when [`wake`](Self::wake) tells
    /// them. A unique key that another producer takes at the same moment fails the transaction, which is then to be
    /// begun again.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on a standalone server;
    /// [`InvalidInput`](ErrorKind::InvalidInput) and [`TooLarge`](ErrorKind::TooLarge) by the default limits;
    /// transient ones. After an error the transaction must be aborted.
    pub async fn enqueue_in(&self, session: &mut ClientSession, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        if !self.0.db.transactions {
            let why = "a standalone server has no transactions; make it a replica set of one";
            return Err(named("enqueue_in")(Error::new(ErrorKind::Unsupported, why)));
        }
        let mut request = Enqueue { jobs };
        request.check(&Limits::default()).map_err(named("enqueue_in"))?;
        let answers = Box::pin(enqueue::enqueue_in(&self.0.db, session, &request.jobs)).await;
        answers.map_err(|fault| named("enqueue_in")(fault.into()))
    }

    /// Commits the caller's transaction and wakes those who wait for jobs of these queues.
    ///
    /// A commit whose answer was lost is made again, for five seconds at most: it has the effect of one.
    ///
    /// # Errors
    /// [`Unknown`](ErrorKind::Unknown) if it is not known whether it was committed; any other means that it was
    /// not, and the transaction is to be begun again if the error is transient.
    pub async fn commit_and_wake<'a>(
        &self,
        session: &mut ClientSession,
        queues: impl IntoIterator<Item = &'a QueueName>,
    ) -> Result<()> {
        let outcome = self.call("commit_and_wake", Deadline::default(), true, enqueue::commit(session)).await;
        // What is unknown may have been committed, and a hint too many does no harm.
        if outcome.as_ref().map_or_else(|error| error.kind() == ErrorKind::Unknown, |()| true) {
            queues.into_iter().for_each(|queue| self.wake(queue));
        }
        outcome
    }

    /// Tells those that watch that jobs of this queue wait: a hint that makes their waiting short.
    pub fn wake(&self, queue: &QueueName) {
        self.0.db.signals.tell("waiting", queue.as_str());
    }

    /// Ends the streams of events and closes the connections, also for all clones.
    pub async fn close(&self) {
        self.0.db.change_tail.close();
        self.0.db.line_tail.close();
        self.0.db.client.clone().shutdown().immediate(true).await;
    }

    /// Runs an operation within its deadline (clause E3). What is under way when it passes is unknown if it
    /// writes, and so is what failed after it had written a part (clause E1).
    async fn call<T>(
        &self,
        operation: &'static str,
        deadline: Deadline,
        writes: bool,
        work: impl Future<Output = Done<T>> + Send,
    ) -> Result<T> {
        let work = Box::pin(async {
            let outcome = work.await.map_err(Error::from);
            outcome.map_err(|error| if WROTE.with(Cell::get) { in_part(error) } else { error })
        });
        let work = WROTE.scope(Cell::new(false), work);
        bounded(deadline, writes, work).await.map_err(named(operation))
    }
}

/// Names the operation and the backend in an error.
fn named(operation: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| error.during(operation).on(BACKEND)
}

impl fmt::Debug for Mongo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mongo").field(&self.0.config).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Mongo {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        let facts = self.call("describe", deadline, false, schema::facts(&self.0.db)).await?;
        let mut capabilities = Capabilities::none(facts.durability);
        capabilities.transactions = facts.transactions;
        capabilities.shared_events = true;
        capabilities.events = true;
        capabilities.own_clock = true;
        // Without transactions, what spans several documents is several steps.
        (capabilities.strict_limits, capabilities.exact_counts) = (facts.transactions, facts.transactions);
        let (version, location) = (facts.version, self.0.config.location());
        Ok(Description { backend: BACKEND.into(), version, location, capabilities })
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        self.call("setup", deadline, true, schema::setup(&self.0.db)).await
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        self.call("now", deadline, false, self.0.db.ask_hour()).await
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        self.call("enqueue", deadline, true, enqueue::enqueue(&self.0.db, request)).await
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        self.call("admit", deadline, true, admit::admit(&self.0.db, &request)).await
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        self.call("claim", deadline, true, claim::claim(&self.0.db, &request)).await
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        self.call("renew", deadline, true, renew::renew(&self.0.db, request)).await
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        self.call("settle", deadline, true, settle::settle(&self.0.db, &request.settlements, By::Holder))
            .await
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        self.call("expired", deadline, true, recover::expired(&self.0.db, request)).await
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        self.call("recover", deadline, true, recover::recover(&self.0.db, &request)).await
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        self.call("append_logs", deadline, true, logs::append_logs(&self.0.db, &request)).await
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        self.call("read_logs", deadline, false, logs::read_logs(&self.0.db, request)).await
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        self.call("find", deadline, false, inspect::find(&self.0.db, request)).await
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        self.call("list", deadline, false, inspect::list(&self.0.db, request)).await
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        self.call("counts", deadline, false, inspect::counts(&self.0.db, request)).await
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        self.call("amend", deadline, true, control::amend(&self.0.db, request)).await
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        self.call("set_queue", deadline, true, control::set_queue(&self.0.db, request)).await
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.call("queues", deadline, false, control::queues(&self.0.db)).await
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        self.call("prune", deadline, true, control::prune(&self.0.db, request)).await
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        self.call("check_in", deadline, true, workers::check_in(&self.0.db, request)).await
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.call("workers", deadline, false, workers::workers(&self.0.db, request)).await
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.call("stop_workers", deadline, true, workers::stop_workers(&self.0.db, request)).await
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        self.call("put_register", deadline, true, registers::put_register(&self.0.db, request)).await
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        self.call("registers", deadline, false, registers::registers(&self.0.db, request)).await
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        self.call("delete_register", deadline, true, registers::delete_register(&self.0.db, request)).await
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        self.call("watch", deadline, false, watch::watch(&self.0.db, request)).await
    }
}
