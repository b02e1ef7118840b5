//! The store, and one forwarding line per operation.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::backend::{
    Admit, Admitted, Amend, Amended, Answer, AppendLogs, Capabilities, CheckIn, CheckedIn, Claim, Claimed,
    Counts, DeleteRegister, Description, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find, List,
    LogPage, Page, Prune, Pruned, PutRegister, QueueCounts, QueueRecord, ReadLogs, Recover, RegisterPage,
    Registers, Renew, Renewed, SetQueue, Settle, Settlement, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{Backend, Deadline, Error, JobRecord, Limits, NewJob, Result, Timestamp};
use sqlx::PgConnection;

use crate::config::Config;
use crate::error::BACKEND;
use crate::session::{Call, Db, Kind};
use crate::settle::By;
use crate::{
    admit, claim, control, enqueue, inspect, logs, recover, registers, renew, schema, settle, upkeep, watch,
    workers,
};

/// Jobs in a PostgreSQL database. Clones share everything.
///
/// Must be opened inside a tokio runtime, and works for as long as that runtime does.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    config: Config,
    db: Arc<Db>,
}

/// Makes a call: attempts at the work until one is not taken back by the server because of others.
macro_rules! call {
    ($self:ident, $operation:literal, $deadline:expr, $kind:ident, $session:ident => $work:expr) => {{
        let call = Call::new($deadline, Kind::$kind);
        let work = async {
            loop {
                let mut session = call.begin(&$self.0.db).await?;
                let $session = &mut session;
                let outcome = $work.await;
                if let Some(outcome) = call.end(session, outcome).await {
                    return outcome;
                }
            }
        };
        Box::pin(call.bound(work)).await.map_err(named($operation))
    }};
}

impl Postgres {
    /// Reaches the server that a `postgres://` URL names; see [`Config::from_url`].
    ///
    /// # Errors
    /// Those of [`Config::from_url`] and of [`with`](Self::with).
    pub async fn connect(url: &str) -> Result<Self> {
        Self::with(Config::from_url(url)?).await
    }

    /// Reaches a server. Schema, tables and functions are made by [`setup`](Backend::setup).
    ///
    /// # Errors
    /// [`Config`](leasehold_core::ErrorKind::Config) if the URL or a name cannot be used, or there is no such database;
    /// [`Denied`](leasehold_core::ErrorKind::Denied) if the server refuses the credentials;
    /// [`Incompatible`](leasehold_core::ErrorKind::Incompatible) if the schema is of a newer version or not ours;
    /// transient ones, after five seconds if no server answers.
    pub async fn with(config: Config) -> Result<Self> {
        let config = config.checked()?;
        let db = Arc::new(Db::new(&config)?);
        let store = Self(Arc::new(Inner { config, db }));
        call!(store, "connect", Deadline::default(), Reads, s => schema::check(s))?;
        watch::start(&store.0.db);
        Ok(store)
    }

    /// Takes jobs in inside the caller's own transaction on the same database: they are there if and only if the caller
    /// commits (clause P5), and whoever watches is told by that commit.
    ///
    /// A unique key that another producer took in a transaction which is still open is waited for.
    ///
    /// # Errors
    /// [`InvalidInput`](leasehold_core::ErrorKind::InvalidInput) and
    /// [`TooLarge`](leasehold_core::ErrorKind::TooLarge) by the default limits;
    /// [`Full`](leasehold_core::ErrorKind::Full); transient ones. After an error, or if this future is dropped half way,
    /// the transaction must be rolled back; so call it inside of one.
    pub async fn enqueue_in(&self, conn: &mut PgConnection, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        let mut request = Enqueue { jobs };
        request.check(&Limits::default()).map_err(named("enqueue_in"))?;
        let answers = enqueue::enqueue_in(&self.0.db, conn, &request.jobs).await;
        // The server took it back, or the connection broke: in either case the caller's transaction is gone.
        answers.map_err(|fault| named("enqueue_in")(fault.told(false)))
    }

    /// Settles attempts inside the caller's own transaction on the same database: what a handler wrote in it and that
    /// its job is done become true together, or not at all. Whoever watches is told by the caller's commit.
    ///
    /// Look at the answers before you commit: [`Lost`](Answer::Lost) says that the job is somebody else's by now, and
    /// that what was written for it is to be rolled back (clause C2).
    ///
    /// # Errors
    /// [`InvalidInput`](leasehold_core::ErrorKind::InvalidInput) and
    /// [`TooLarge`](leasehold_core::ErrorKind::TooLarge) by the default limits; transient ones. After an error, or if
    /// this future is dropped half way, the transaction must be rolled back; so call it inside of one.
    pub async fn settle_in(
        &self,
        conn: &mut PgConnection,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Answer>> {
        let mut request = Settle { settlements };
        request.check(&Limits::default()).map_err(named("settle_in"))?;
        let answers = settle::settle_in(&self.0.db, conn, &request.settlements).await;
        // As of an enqueue: in either case the caller's transaction is gone.
        answers.map_err(|fault| named("settle_in")(fault.told(false)))
    }

    /// Finishes nothing and closes the connections, also for all clones; streams of events end. Later calls fail as
    /// [`Closed`](leasehold_core::ErrorKind::Closed).
    pub async fn close(&self) {
        self.0.db.ears.close();
        self.0.db.pool.close().await;
        self.0.db.upkeep.close().await;
    }
}

/// Names the operation and the backend in an error.
fn named(operation: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| error.during(operation).on(BACKEND)
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.0.config).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Postgres {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        let facts = call!(self, "describe", deadline, Reads, s => schema::facts(s))?;
        let mut capabilities = Capabilities::none(facts.durability);
        capabilities.atomic_batch = true;
        capabilities.transactions = true;
        // Whoever listens needs a session of its own.
        (capabilities.events, capabilities.shared_events) = (!self.0.db.pooler, !self.0.db.pooler);
        (capabilities.strict_limits, capabilities.exact_counts) = (true, true);
        capabilities.own_clock = true;
        let (version, location) = (facts.version, self.0.config.location());
        Ok(Description { backend: BACKEND.into(), version, location, capabilities })
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        call!(self, "setup", deadline, WritesInSteps, s => schema::setup(s))
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        call!(self, "now", deadline, Reads, s => schema::now(s))
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        if enqueue::is_plain(&request.jobs) {
            call!(self, "enqueue", deadline, Writes, s => enqueue::enqueue(s, &request.jobs))
        } else {
            call!(self, "enqueue", deadline, WritesInSteps, s => enqueue::enqueue(s, &request.jobs))
        }
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        call!(self, "admit", deadline, WritesInSteps, s => admit::admit(s, &request))
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        let claimed = call!(self, "claim", deadline, Writes, s => claim::claim(s, &request))?;
        upkeep::claimed(&self.0.db, claimed.jobs.len());
        Ok(claimed)
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        call!(self, "renew", deadline, Writes, s => renew::renew(s, &request))
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        call!(self, "settle", deadline, Writes, s => settle::settle(s, &request.settlements, By::Holder))
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        call!(self, "expired", deadline, Reads, s => recover::expired(s, request, deadline))
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        call!(self, "recover", deadline, Writes, s => settle::settle(s, &request.settlements, By::Recoverer))
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        call!(self, "append_logs", deadline, Writes, s => logs::append_logs(s, &request))
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        call!(self, "read_logs", deadline, Reads, s => logs::read_logs(s, request))
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        call!(self, "find", deadline, Reads, s => inspect::find(s, &request))
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        call!(self, "list", deadline, Reads, s => inspect::list(s, &request))
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        call!(self, "counts", deadline, Reads, s => inspect::counts(s, &request))
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        call!(self, "amend", deadline, WritesInSteps, s => control::amend(s, &request))
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        call!(self, "set_queue", deadline, Writes, s => control::set_queue(s, &request))
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        call!(self, "queues", deadline, Reads, s => control::queues(s))
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        call!(self, "prune", deadline, Writes, s => control::prune(s, request))
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        call!(self, "check_in", deadline, Writes, s => workers::check_in(s, &request))
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        call!(self, "workers", deadline, Reads, s => workers::workers(s, request))
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        call!(self, "stop_workers", deadline, Writes, s => workers::stop_workers(s, &request))
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        call!(self, "put_register", deadline, Writes, s => registers::put_register(s, &request))
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        call!(self, "registers", deadline, Reads, s => registers::registers(s, &request))
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        call!(self, "delete_register", deadline, Writes, s => registers::delete_register(s, &request))
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        let call = Call::new(deadline, Kind::Reads);
        call.bound(watch::watch(&self.0.db, request)).await.map_err(named("watch"))
    }
}
