use std::time::Duration;

use super::{Flows, missing};
use crate::backend::{Action, DeleteRegister, Space};
use crate::error::Result;
use crate::flow::{FlowRecord, FlowState, part, register};
use crate::id::FlowId;

/// How long what a producer enqueues late is still found, after its flow was abandoned.
const LATE: Duration = Duration::from_mins(10);
/// How long nobody else removes a flow that is being removed, and how long one with jobs that have not ended is left.
const PATIENCE: Duration = Duration::from_mins(10);

impl Flows {
    /// Removes a flow whose producer is gone, and its jobs; then once more what a producer that was held up enqueued since.
    pub(super) async fn abandon(&self, mut record: FlowRecord) -> Result<()> {
        let is_over = record.body.state == FlowState::Abandoned;
        let hour = self.store.now().await?;
        record.body.state = FlowState::Abandoned;
        self.write(&mut record, Some(hour.plus(LATE))).await?;
        if !is_over {
            tracing::warn!(flow = %record.id, name = record.name, "the enqueue of a flow was broken off; it is removed");
        }
        self.delete_jobs(record.id, record.size).await?;
        if is_over { self.delete_registers(&record).await } else { Ok(()) }
    }

    /// Removes a flow that was kept long enough, and its jobs; unless somebody sent one of them round again.
    pub(super) async fn remove(&self, mut record: FlowRecord) -> Result<()> {
        let hour = self.store.now().await?;
        self.write(&mut record, Some(hour.plus(PATIENCE))).await?;
        for jobs in (0..record.size).collect::<Vec<_>>().chunks(self.batch()) {
            let found = self.store.find_all(jobs.iter().map(|job| record.id.member(*job)).collect()).await?;
            if found.iter().flatten().any(|job| !job.state.is_terminal()) {
                return Ok(());
            }
        }
        self.delete_jobs(record.id, record.size).await?;
        self.delete_registers(&record).await
    }

    /// Deletes the jobs of a flow.
    pub(super) async fn delete_jobs(&self, flow: FlowId, size: u32) -> Result<()> {
        for jobs in (0..size).collect::<Vec<_>>().chunks(self.batch()) {
            self.amend(flow, jobs, Action::Delete).await?;
        }
        Ok(())
    }

    async fn delete_registers(&self, record: &FlowRecord) -> Result<()> {
        for number in 0..record.body.parts {
            let request = DeleteRegister { space: Space::FlowPlan, name: part(record.id, number)? };
            self.store.backend().delete_register(self.store.deadline(), request).await?;
        }
        // The last one, since it tells of all others.
        let request = DeleteRegister { space: Space::Flow, name: register(record.id)? };
        self.store.backend().delete_register(self.store.deadline(), request).await?;
        Ok(())
    }

    /// Removes a flow that has ended, and its jobs, before its time.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such flow; [`Conflict`](crate::ErrorKind::Conflict) if it has not
    /// ended.
    pub async fn delete(&self, flow: FlowId) -> Result<()> {
        let record = self.get(flow).await?.ok_or_else(|| missing(flow))?;
        if !record.state.is_terminal() {
            let why = format!("the flow {flow} has not ended; cancel it first");
            return Err(crate::Error::new(crate::ErrorKind::Conflict, why));
        }
        self.remove(record).await
    }
}
