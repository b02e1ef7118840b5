use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::backend::{
    Amend, Amended, Answer, AppendLogs, CheckIn, CheckedIn, Claim, Claimed, Counts, DeleteSchedule,
    Description, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find, List, LogPage, Page, Prune, Pruned,
    PutSchedule, QueueCounts, QueueRecord, ReadLogs, Recover, Renew, Renewed, Schedule, Schedules, SetQueue,
    Settle, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{Backend, Deadline, JobRecord, Timestamp};

use crate::Trouble;
use crate::server::Server;

/// Counts the round trips of a backend to its store. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    backend: Arc<dyn Backend>,
    calls: Arc<AtomicU64>,
    server: Option<Arc<Server>>,
}

impl Counted {
    /// Counts the calls of the contract's methods, where each is a round trip.
    pub(crate) fn calls_of(backend: impl Backend) -> Self {
        Self::shared(Arc::new(backend))
    }

    /// The same, of a backend that others have too.
    pub(crate) fn shared(backend: Arc<dyn Backend>) -> Self {
        Self { backend, calls: Arc::default(), server: None }
    }

    /// Counts the commands that the server was sent, by whomever.
    pub(crate) fn commands_of(backend: impl Backend, server: Arc<Server>) -> Self {
        Self { server: Some(server), ..Self::calls_of(backend) }
    }

    /// How many round trips there were.
    pub(crate) async fn trips(&self) -> Result<u64, Trouble> {
        match &self.server {
            Some(server) => server.commands().await,
            None => Ok(self.calls.load(Ordering::Relaxed)),
        }
    }

    /// The server that counts, if one does.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }
}

macro_rules! count {
    ($($method:ident($($request:ident)?) -> $answer:ty;)*) => {
        #[async_trait]
        impl Backend for Counted {
            $(async fn $method(&self, deadline: Deadline $(, request: $request)?) -> leasehold_core::Result<$answer> {
                self.calls.fetch_add(1, Ordering::Relaxed);
                self.backend.$method(deadline $(, count!(@ request $request))?).await
            })*
        }
    };
    (@ $request:ident $type:ident) => { $request };
}

count! {
    describe() -> Description;
    setup() -> ();
    now() -> Timestamp;
    enqueue(Enqueue) -> Vec<Enqueued>;
    claim(Claim) -> Claimed;
    renew(Renew) -> Vec<Renewed>;
    settle(Settle) -> Vec<Answer>;
    expired(Expired) -> Vec<ExpiredLease>;
    recover(Recover) -> Vec<Answer>;
    append_logs(AppendLogs) -> Vec<Answer>;
    read_logs(ReadLogs) -> LogPage;
    find(Find) -> Vec<Option<JobRecord>>;
    list(List) -> Page;
    counts(Counts) -> Vec<QueueCounts>;
    amend(Amend) -> Amended;
    set_queue(SetQueue) -> ();
    queues() -> Vec<QueueRecord>;
    prune(Prune) -> Pruned;
    check_in(CheckIn) -> CheckedIn;
    workers(Workers) -> Vec<WorkerRecord>;
    stop_workers(StopWorkers) -> u64;
    put_schedule(PutSchedule) -> ();
    schedules(Schedules) -> Vec<Schedule>;
    delete_schedule(DeleteSchedule) -> bool;
    watch(Watch) -> BoxStream<'static, Event>;
}
