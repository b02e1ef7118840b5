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
use leasehold_core::{Backend, Deadline, JobRecord, Result, Timestamp};

/// Counts the calls of a backend: the round trips to its store. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    backend: Arc<dyn Backend>,
    calls: Arc<AtomicU64>,
}

impl Counted {
    pub(crate) fn new(backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend), calls: Arc::default() }
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

macro_rules! count {
    ($($method:ident($($request:ident)?) -> $answer:ty;)*) => {
        #[async_trait]
        impl Backend for Counted {
            $(async fn $method(&self, deadline: Deadline $(, request: $request)?) -> Result<$answer> {
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
