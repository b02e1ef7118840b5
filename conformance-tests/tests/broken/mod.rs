//! The store in memory with one defect around it.

mod defect;
mod fleet;
mod giving;
mod holding;
mod hollow;
mod logging;
mod moving;
mod showing;
mod taking;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::backend::*;
use leasehold_core::{
    Backend, ClaimId, Clock as _, Deadline, JobId, JobRecord, LeaseToken, LeasedJob, Limit, Result,
    SystemClock, Timestamp, WorkerId, WorkerName,
};
use leasehold_memory::Memory;

pub(crate) use self::defect::Defect;
pub(crate) use self::hollow::Nothing;

/// Opens the store in memory, sound or with a defect.
#[derive(Default)]
pub(crate) struct Ours {
    defect: Option<Defect>,
    stores: Mutex<HashMap<String, Store>>,
}

/// A store, and what its defect remembers of it.
type Store = (Memory, Arc<Mutex<Shadow>>);

impl Ours {
    pub(crate) fn sound() -> Arc<dyn Harness> {
        Arc::new(Self::default())
    }

    pub(crate) fn with(defect: Defect) -> Arc<dyn Harness> {
        Arc::new(Self { defect: Some(defect), ..Self::default() })
    }
}

#[async_trait]
impl Harness for Ours {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = || place.clock.clone().map_or_else(Memory::new, Memory::on_clock);
        let make = || (memory(), Arc::default());
        let (inner, shadow) = stores.entry(place.name.clone()).or_insert_with(make).clone();
        Ok(match self.defect {
            Some(defect) => Arc::new(Broken { inner, defect, shadow }),
            None => Arc::new(inner),
        })
    }

    async fn forget(&self, place: &Place) -> Result<(), CannotRun> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner).remove(&place.name);
        Ok(())
    }
}

/// What a defect needs to know of the past.
#[derive(Default)]
struct Shadow {
    /// The present lease of each job.
    tokens: HashMap<JobId, LeaseToken>,
    /// Every job that was given out, last ones last.
    given: Vec<LeasedJob>,
    claims: HashSet<ClaimId>,
    /// The limits of jobs that were taken in without.
    limits: HashMap<JobId, Limit>,
    ended: Vec<JobId>,
    settled: HashSet<LeaseToken>,
    /// The leases that were told to have run out.
    lost: HashSet<LeaseToken>,
    cancelled: HashSet<JobId>,
    lines: Vec<LogLine>,
    /// How many lines were written under each lease.
    logged: HashMap<LeaseToken, u64>,
    /// When the last job of the latest page was taken in.
    shown: Option<Timestamp>,
    miscounted: u64,
    /// The jobs that replaced another one.
    newcomers: HashSet<JobId>,
    names: HashMap<WorkerName, WorkerId>,
    said: HashMap<WorkerId, WorkerInfo>,
}

/// A store with a defect.
struct Broken {
    inner: Memory,
    defect: Defect,
    shadow: Arc<Mutex<Shadow>>,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broken({})", self.defect)
    }
}

impl Broken {
    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn shadow(&self) -> MutexGuard<'_, Shadow> {
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a call must have answered, or so one should think.
    fn by(&self, deadline: Deadline) -> Deadline {
        if self.has(Defect::ActsAfterTheDeadline) { Deadline::default() } else { deadline }
    }

    /// The token under which a job runs now.
    fn present(&self, job: JobId) -> Option<LeaseToken> {
        self.shadow().tokens.get(&job).copied()
    }

    async fn record(&self, job: JobId) -> Result<Option<JobRecord>> {
        let found = self.inner.find(Deadline::default(), Find { ids: vec![job] }).await?;
        Ok(found.into_iter().next().flatten())
    }

    async fn amend_one(&self, job: JobId, action: Action) -> Result<AmendAnswer> {
        let request = Amend { select: Select::Ids(vec![job]), action, preview: false };
        Ok(self.inner.amend(Deadline::default(), request).await?.jobs[0].1)
    }
}

#[async_trait]
impl Backend for Broken {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        let mut description = self.inner.describe(deadline).await?;
        if self.has(Defect::ClaimsToBeDurable) {
            description.capabilities.durability = Durability::D3;
        }
        Ok(description)
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        self.inner.setup(deadline).await
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        let now = self.inner.now(deadline).await?;
        Ok(if self.has(Defect::UsesTheCallersClock) { SystemClock.now() } else { now })
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        self.enqueue_badly(self.by(deadline), request).await
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        self.admit_badly(deadline, request).await
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        self.claim_badly(deadline, request).await
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        self.renew_badly(deadline, request).await
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        self.settle_badly(deadline, request).await
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        self.expired_badly(deadline, request).await
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        self.recover_badly(deadline, request).await
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        self.log_badly(deadline, request).await
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        self.read_badly(deadline, request).await
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        self.find_badly(deadline, request).await
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        self.list_badly(deadline, request).await
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        self.counts_badly(deadline, request).await
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        self.amend_badly(deadline, request).await
    }

    async fn set_queue(&self, deadline: Deadline, mut request: SetQueue) -> Result<()> {
        match (self.defect, &request.settings.pause) {
            (Defect::IgnoresPauses, _) => request.settings = QueueSettings::default(),
            (Defect::IgnoresPausedRoots, _) if request.queue.is_root() => {
                request.settings = QueueSettings::default();
            }
            (Defect::NeverResumes, None) => return Ok(()),
            _ => {}
        }
        self.inner.set_queue(deadline, request).await
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.inner.queues(deadline).await
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        self.prune_badly(deadline, request).await
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        self.check_in_badly(deadline, request).await
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.workers_badly(deadline, request).await
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.inner.stop_workers(deadline, request).await
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        self.put_badly(deadline, request).await
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        self.registers_badly(deadline, request).await
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        self.delete_badly(deadline, request).await
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        self.watch_badly(deadline, request).await
    }
}
