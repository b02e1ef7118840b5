//! The store, and one forwarding line per operation.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use leasehold_core::authoring::calls::{bounded, late};
use leasehold_core::backend::{
    Admit, Admitted, Amend, Amended, Answer, AppendLogs, Capabilities, CheckIn, CheckedIn, Claim, Claimed,
    Counts, DeleteRegister, Description, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find, List,
    LogPage, Page, Prune, Pruned, PutRegister, QueueCounts, QueueRecord, ReadLogs, Recover, RegisterPage,
    Registers, Renew, Renewed, SetQueue, Settle, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{Backend, Deadline, Error, JobRecord, Limits, NewJob, Result, Timestamp};
use sqlx::{SqliteConnection, SqlitePool};

use crate::config::Config;
use crate::error::{BACKEND, Done, Fault};
use crate::schema::{self, Facts};
use crate::settle::By;
use crate::writer::{Session, Writer};
use crate::{
    admit, claim, control, enqueue, inspect, logs, recover, registers, renew, settle, watch, workers,
};

/// Jobs in an SQLite file. Clones share everything.
///
/// Must be opened inside a tokio runtime, and works for as long as that runtime does.
#[derive(Clone)]
pub struct Sqlite(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    facts: Facts,
    writer: Writer,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens the file at `path`, with defaults; makes it if it is not there. See [`with`](Self::with).
    ///
    /// # Errors
    /// Those of [`with`](Self::with).
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::with(Config::new(path)).await
    }

    /// Opens what a URL names; see [`Config::from_url`].
    ///
    /// # Errors
    /// Those of [`Config::from_url`] and of [`with`](Self::with).
    pub async fn connect(url: &str) -> Result<Self> {
        Self::with(Config::from_url(url)?).await
    }

    /// Opens a file. Its tables are made by [`setup`](Backend::setup).
    ///
    /// # Errors
    /// [`Config`](leasehold_core::ErrorKind::Config) if the path cannot be a file; [`Incompatible`](leasehold_core::ErrorKind::Incompatible) if it
    /// is no SQLite file, another application's, or of a newer version, or if this program was built with an
    /// SQLite older than 3.51.3; [`Denied`](leasehold_core::ErrorKind::Denied) without the rights; transient ones.
    pub async fn with(config: Config) -> Result<Self> {
        let config = Arc::new(config.checked()?);
        let mut conn = schema::connect_writer(&config).await.map_err(named("connect"))?;
        let facts = schema::facts(&mut conn).await.map_err(|fault| named("connect")(fault.into()))?;
        let (writer, readers) = (Writer::start(Arc::clone(&config), conn), schema::readers(&config));
        Ok(Self(Arc::new(Inner { config, facts, writer, readers })))
    }

    /// Takes jobs in inside the caller's own transaction on the same file: they are there if and only if the
    /// caller commits (clause P5). Begin it with `BEGIN IMMEDIATE`, so that it waits for other writers instead of
    /// failing when they come between.
    ///
    /// Workers of this process learn of the jobs within 50 ms of the commit if they watch.
    ///
    /// # Errors
    /// [`InvalidInput`](leasehold_core::ErrorKind::InvalidInput) and
    /// [`TooLarge`](leasehold_core::ErrorKind::TooLarge) by the default limits;
    /// [`Full`](leasehold_core::ErrorKind::Full); transient ones. After an error, or if this future is dropped half way, the transaction must be rolled back; so
    /// call it inside of one.
    pub async fn enqueue_in(&self, conn: &mut SqliteConnection, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        let mut request = Enqueue { jobs };
        request.check(&Limits::default()).map_err(named("enqueue_in"))?;
        let now = self.0.config.clock.now();
        enqueue::insert_whole(conn, &request.jobs, now)
            .await
            .map_err(|fault| named("enqueue_in")(fault.into()))
    }

    /// Finishes what is under way and closes the file, also for all clones. Later calls fail as
    /// [`Closed`](leasehold_core::ErrorKind::Closed). Dropping the last clone does the same, but nobody waits for it.
    pub async fn close(&self) {
        self.0.writer.close().await;
        self.0.readers.close().await;
    }

    async fn write<T, F>(&self, operation: &'static str, deadline: Deadline, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Done<T>> + Send + 'static,
    {
        self.0.writer.call(deadline, work).await.map_err(named(operation))
    }

    async fn read<T, F>(&self, operation: &'static str, deadline: Deadline, work: F) -> Result<T>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection, Timestamp) -> BoxFuture<'c, Done<T>>,
    {
        let reading = async {
            let mut conn = self.0.readers.acquire().await.map_err(Fault::from)?;
            Ok(work(&mut conn, self.0.config.clock.now()).await?)
        };
        bounded(deadline, false, reading).await.map_err(named(operation))
    }
}

fn in_time(deadline: Deadline) -> Result<()> {
    if deadline.has_passed() { Err(late()) } else { Ok(()) }
}

/// Names the operation and the backend in an error.
fn named(operation: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| error.during(operation).on(BACKEND)
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.0.config.path).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Sqlite {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        in_time(deadline).map_err(named("describe"))?;
        let location = self.0.config.path.display().to_string();
        let mut capabilities = Capabilities::none(self.0.facts.durability);
        capabilities.atomic_batch = true;
        (capabilities.strict_limits, capabilities.exact_counts) = (true, true);
        capabilities.transactions = true;
        capabilities.shared_events = true;
        capabilities.events = true;
        let version = self.0.facts.version.clone();
        Ok(Description { backend: BACKEND.into(), version, location, capabilities })
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        self.write("setup", deadline, |s| Box::pin(schema::setup(&mut s.conn))).await
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        in_time(deadline).map_err(named("now"))?;
        Ok(self.0.config.clock.now())
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        self.write("enqueue", deadline, |s| Box::pin(enqueue::enqueue(s, request))).await
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        self.write("admit", deadline, |s| Box::pin(admit::admit(s, request))).await
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        self.write("claim", deadline, |s| Box::pin(claim::claim(s, request))).await
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        self.write("renew", deadline, |s| Box::pin(renew::renew(s, request))).await
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        self.write("settle", deadline, |s| Box::pin(settle::settle(s, request, By::Holder))).await
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        self.write("expired", deadline, move |s| Box::pin(recover::expired(s, request))).await
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        self.write("recover", deadline, |s| Box::pin(recover::recover(s, request))).await
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        self.write("append_logs", deadline, |s| Box::pin(logs::append_logs(s, request))).await
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        self.read("read_logs", deadline, |conn, _| Box::pin(logs::read_logs(conn, request))).await
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        self.read("find", deadline, |conn, now| Box::pin(inspect::find(conn, request, now))).await
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        self.read("list", deadline, |conn, now| Box::pin(inspect::list(conn, request, now))).await
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        self.read("counts", deadline, |conn, now| Box::pin(inspect::counts(conn, request, now))).await
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        self.write("amend", deadline, |s| Box::pin(control::amend(s, request))).await
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        self.write("set_queue", deadline, |s| Box::pin(control::set_queue(s, request))).await
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.read("queues", deadline, |conn, _| Box::pin(control::queues(conn))).await
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        self.write("prune", deadline, move |s| Box::pin(control::prune(s, request))).await
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        self.write("check_in", deadline, |s| Box::pin(workers::check_in(s, request))).await
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.read("workers", deadline, |conn, now| Box::pin(workers::workers(conn, request, now))).await
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.write("stop_workers", deadline, |s| Box::pin(workers::stop_workers(s, request))).await
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        self.write("put_register", deadline, |s| Box::pin(registers::put_register(s, request))).await
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        self.read("registers", deadline, |conn, now| Box::pin(registers::registers(conn, request, now))).await
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        self.write("delete_register", deadline, |s| Box::pin(registers::delete_register(s, request))).await
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        watch::watch(&self.0.writer, deadline, request).await.map_err(named("watch"))
    }
}
