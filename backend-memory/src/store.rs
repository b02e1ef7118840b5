use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::authoring::calls::late;
use leasehold_core::backend::{
    Admit, Admitted, Amend, Amended, Answer, AppendLogs, Capabilities, CheckIn, CheckedIn, Claim, Claimed,
    Counts, DeleteRegister, Description, Durability, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find,
    List, LogPage, Page, Prune, Pruned, PutRegister, QueueCounts, QueueRecord, ReadLogs, Recover,
    RegisterPage, Registers, Renew, Renewed, SetQueue, Settle, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{Backend, Clock, Deadline, Error, ErrorKind, JobRecord, Result, Timestamp, TokioClock};
use tokio::sync::broadcast;

use crate::config::Config;
use crate::schema::Tables;
use crate::{
    admit, claim, control, enqueue, inspect, logs, recover, registers, renew, settle, watch, workers,
};

/// A store in this process's memory. Clones are the same store; it is gone with the last of them.
#[derive(Clone)]
pub struct Memory(Arc<Store>);

struct Store {
    clock: Box<dyn Clock>,
    tables: Mutex<Tables>,
    events: broadcast::Sender<Event>,
}

impl Memory {
    /// An empty store on tokio's clock: under `tokio::time::pause` an hour passes in no time.
    pub fn new() -> Self {
        Self::on_clock(TokioClock::start())
    }

    /// An empty store on this clock, such as a [`ManualClock`](leasehold_core::ManualClock).
    pub fn on_clock(clock: impl Clock) -> Self {
        Self::with(Config::default(), clock)
    }

    /// An empty store of this size on this clock.
    pub fn with(config: Config, clock: impl Clock) -> Self {
        let (events, _) = broadcast::channel(config.events.clamp(1, 1 << 20));
        Self(Arc::new(Store { clock: Box::new(clock), tables: Mutex::new(Tables::new(config)), events }))
    }

    /// Runs one operation: under the lock, at one moment, and with nothing to wait for.
    fn run<T>(
        &self,
        deadline: Deadline,
        name: &'static str,
        operation: impl FnOnce(&mut Tables, Timestamp) -> Result<T>,
    ) -> Result<T> {
        let store = &*self.0;
        let named = |error: Error| error.during(name).on("memory");
        if deadline.has_passed() {
            return Err(named(late()));
        }
        let mut tables = store.tables.lock().map_err(|_| {
            let why = "an earlier call panicked and may have left a half-made change; start anew";
            named(Error::new(ErrorKind::Internal, why))
        })?;
        tables.watched = store.events.receiver_count() > 0;
        let result = operation(&mut tables, store.clock.now());
        if tables.watched {
            for event in tables.told() {
                // The one error there is says that the last reader has just gone.
                let _ = store.events.send(event);
            }
        }
        drop(tables);
        result.map_err(named)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("clock", &self.0.clock).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Memory {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        self.run(deadline, "describe", |_, _| {
            let mut capabilities = Capabilities::none(Durability::D0);
            capabilities.atomic_batch = true;
            (capabilities.strict_limits, capabilities.exact_counts) = (true, true);
            capabilities.events = true;
            Ok(Description {
                backend: "memory".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                location: "this process".into(),
                capabilities,
            })
        })
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        self.run(deadline, "setup", |_, _| Ok(()))
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        self.run(deadline, "now", |_, now| Ok(now))
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        self.run(deadline, "enqueue", |tables, now| enqueue::enqueue(tables, now, request))
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        self.run(deadline, "admit", |tables, now| admit::admit(tables, now, request))
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        self.run(deadline, "claim", |tables, now| Ok(claim::claim(tables, now, &request)))
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        self.run(deadline, "renew", |tables, now| Ok(renew::renew(tables, now, request)))
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        self.run(deadline, "settle", |tables, now| Ok(settle::settle(tables, now, request)))
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        self.run(deadline, "expired", |tables, now| Ok(recover::expired(tables, now, request)))
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        self.run(deadline, "recover", |tables, now| Ok(recover::recover(tables, now, request)))
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        self.run(deadline, "append_logs", |tables, now| Ok(logs::append(tables, now, request)))
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        self.run(deadline, "read_logs", |tables, _| Ok(tables.logs.read(request)))
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        self.run(deadline, "find", |tables, now| Ok(inspect::find(tables, now, &request)))
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        self.run(deadline, "list", |tables, now| inspect::list(tables, now, &request))
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        self.run(deadline, "counts", |tables, now| Ok(inspect::counts(tables, now, &request)))
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        self.run(deadline, "amend", |tables, now| control::amend(tables, now, &request))
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        self.run(deadline, "set_queue", |tables, now| {
            control::set_queue(tables, now, request);
            Ok(())
        })
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.run(deadline, "queues", |tables, _| Ok(control::queues(tables)))
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        self.run(deadline, "prune", |tables, now| Ok(control::prune(tables, now, request)))
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        self.run(deadline, "check_in", |tables, now| Ok(workers::check_in(tables, now, request)))
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.run(deadline, "workers", |tables, now| Ok(workers::workers(tables, now, request)))
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.run(deadline, "stop_workers", |tables, _| Ok(workers::stop(tables, &request)))
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        self.run(deadline, "put_register", |tables, _| registers::put(tables, request))
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        self.run(deadline, "registers", |tables, now| Ok(registers::registers(tables, now, &request)))
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        self.run(deadline, "delete_register", |tables, _| Ok(registers::delete(tables, &request)))
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        self.run(deadline, "watch", |_, _| Ok(watch::watch(&self.0.events, request)))
    }
}
