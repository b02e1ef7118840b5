//! A store that says yes to everything and keeps nothing.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, JobRecord, Result, Timestamp};

/// Opens it.
pub(crate) struct Nothing;

#[async_trait]
impl Harness for Nothing {
    async fn open(&self, _: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(Hollow))
    }
}

#[derive(Debug)]
struct Hollow;

#[async_trait]
impl Backend for Hollow {
    async fn describe(&self, _: Deadline) -> Result<Description> {
        let mut capabilities = Capabilities::none(Durability::D0);
        (capabilities.atomic_batch, capabilities.events, capabilities.shared_events) = (true, true, true);
        (capabilities.strict_limits, capabilities.exact_counts) = (true, true);
        let (backend, version, location) = ("hollow".into(), "0".into(), "nowhere".into());
        Ok(Description { backend, version, location, capabilities })
    }

    async fn setup(&self, _: Deadline) -> Result<()> {
        Ok(())
    }

    async fn now(&self, _: Deadline) -> Result<Timestamp> {
        Ok(Timestamp::default())
    }

    async fn enqueue(&self, _: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        let created = |job: leasehold_core::NewJob| Enqueued { job: job.id, answer: EnqueueAnswer::Created };
        Ok(request.jobs.into_iter().map(created).collect())
    }

    async fn admit(&self, _: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        Ok(request.jobs.into_iter().map(|_| Admitted::Created).collect())
    }

    async fn claim(&self, _: Deadline, _: Claim) -> Result<Claimed> {
        Ok(Claimed::default())
    }

    async fn renew(&self, _: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        Ok(vec![Renewed::Lost; request.renewals.len()])
    }

    async fn settle(&self, _: Deadline, request: Settle) -> Result<Vec<Answer>> {
        Ok(vec![Answer::Applied; request.settlements.len()])
    }

    async fn expired(&self, _: Deadline, _: Expired) -> Result<Vec<ExpiredLease>> {
        Ok(Vec::new())
    }

    async fn recover(&self, _: Deadline, request: Recover) -> Result<Vec<Answer>> {
        Ok(vec![Answer::Applied; request.settlements.len()])
    }

    async fn append_logs(&self, _: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        Ok(vec![Answer::Applied; request.appends.len()])
    }

    async fn read_logs(&self, _: Deadline, _: ReadLogs) -> Result<LogPage> {
        Ok(LogPage::default())
    }

    async fn find(&self, _: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        Ok(vec![None; request.ids.len()])
    }

    async fn list(&self, _: Deadline, _: List) -> Result<Page> {
        Ok(Page::default())
    }

    async fn counts(&self, _: Deadline, _: Counts) -> Result<Vec<QueueCounts>> {
        Ok(Vec::new())
    }

    async fn amend(&self, _: Deadline, request: Amend) -> Result<Amended> {
        let ids = match request.select {
            Select::Ids(ids) => ids,
            Select::Matching { .. } => Vec::new(),
        };
        let jobs = ids.into_iter().map(|id| (id, AmendAnswer::Applied)).collect();
        Ok(Amended { jobs, next: None })
    }

    async fn set_queue(&self, _: Deadline, _: SetQueue) -> Result<()> {
        Ok(())
    }

    async fn queues(&self, _: Deadline) -> Result<Vec<QueueRecord>> {
        Ok(Vec::new())
    }

    async fn prune(&self, _: Deadline, _: Prune) -> Result<Pruned> {
        Ok(Pruned::default())
    }

    async fn check_in(&self, _: Deadline, _: CheckIn) -> Result<CheckedIn> {
        Ok(CheckedIn::default())
    }

    async fn workers(&self, _: Deadline, _: Workers) -> Result<Vec<WorkerRecord>> {
        Ok(Vec::new())
    }

    async fn stop_workers(&self, _: Deadline, _: StopWorkers) -> Result<u64> {
        Ok(0)
    }

    async fn put_register(&self, _: Deadline, _: PutRegister) -> Result<()> {
        Ok(())
    }

    async fn registers(&self, _: Deadline, _: Registers) -> Result<RegisterPage> {
        Ok(RegisterPage { hour: Timestamp::default(), registers: Vec::new() })
    }

    async fn delete_register(&self, _: Deadline, _: DeleteRegister) -> Result<bool> {
        Ok(false)
    }

    async fn watch(&self, _: Deadline, _: Watch) -> Result<BoxStream<'static, Event>> {
        Ok(Box::pin(futures::stream::empty()))
    }
}
