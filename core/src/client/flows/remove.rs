use std::time::Duration;

use tokio::time::Instant;

use super::members::Walk;
use super::{Flows, missing};
use crate::backend::{Action, AmendAnswer, DeleteRegister, Register, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{FlowRecord, FlowState, register};
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
        let are_gone = self.delete_jobs(record.id, record.size).await?;
        if is_over && are_gone { self.delete_registers(&record).await } else { Ok(()) }
    }

    /// Removes a flow that was kept long enough, and its jobs; unless somebody sent one of them round again.
    pub(super) async fn remove(&self, mut record: FlowRecord) -> Result<()> {
        self.put_off(&mut record).await?;
        if self.have_ended(&record).await? {
            self.remove_all(&record).await?;
        }
        Ok(())
    }

    /// So that nobody else removes it meanwhile, and somebody does if this process ends.
    async fn put_off(&self, record: &mut FlowRecord) -> Result<()> {
        let hour = self.store.now().await?;
        self.write(record, Some(hour.plus(PATIENCE))).await
    }

    /// Whether all jobs of a flow have ended, or are there no more.
    async fn have_ended(&self, record: &FlowRecord) -> Result<bool> {
        let mut walk = Walk::of(record);
        while let Some(found) = self.next_of(&mut walk).await? {
            if found.iter().any(|(_, job)| !job.state.is_terminal()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes all that there is of a flow; tells whether it could.
    async fn remove_all(&self, record: &FlowRecord) -> Result<bool> {
        let are_gone = self.delete_jobs(record.id, record.size).await?;
        if are_gone {
            self.delete_registers(record).await?;
        }
        Ok(are_gone)
    }

    /// Deletes the jobs of a flow; tells whether none is left that runs. Whoever was held up for so long that somebody else may
    /// have removed them and enqueued the flow anew stops here.
    pub(super) async fn delete_jobs(&self, flow: FlowId, size: u32) -> Result<bool> {
        let (mut are_gone, began) = (true, Instant::now());
        for jobs in (0..size).collect::<Vec<_>>().chunks(self.batch()) {
            if began.elapsed() > PATIENCE / 2 {
                return Ok(false);
            }
            let answers = self.amend(flow, jobs, Action::Delete).await?;
            are_gone &= !answers.iter().any(|answer| matches!(answer, AmendAnswer::Refused(_)));
        }
        Ok(are_gone)
    }

    /// Removes what is kept of a flow, unless somebody wrote it since: then what was read of its plan may be another one's.
    async fn delete_registers(&self, record: &FlowRecord) -> Result<()> {
        let parts = self.parts_of(record.id, record.body.parts).await?;
        if self.get(record.id).await?.is_none_or(|there| there.version != record.version) {
            return Ok(());
        }
        self.delete_parts(&parts).await?;
        // The last one, since it tells of all others.
        let expected = Some(record.version);
        let request = DeleteRegister { expected, ..DeleteRegister::named(Space::Flow, register(record.id)?) };
        self.store.backend().delete_register(self.store.deadline(), request).await?;
        Ok(())
    }

    /// What is there of the plan of a flow.
    pub(in crate::client) async fn parts_of(&self, flow: FlowId, parts: u32) -> Result<Vec<Register>> {
        let mut found = Vec::new();
        for number in 0..parts {
            found.extend(self.part(flow, number).await?);
        }
        Ok(found)
    }

    pub(in crate::client) async fn delete_parts(&self, parts: &[Register]) -> Result<()> {
        for part in parts {
            let request = DeleteRegister::as_read(part);
            self.store.backend().delete_register(self.store.deadline(), request).await?;
        }
        Ok(())
    }

    /// Removes a flow that has ended, and its jobs, before its time.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such flow; [`Conflict`](ErrorKind::Conflict) if it has not ended, or one
    /// of its jobs was sent round again and has not.
    pub async fn delete(&self, flow: FlowId) -> Result<()> {
        let mut record = self.get(flow).await?.ok_or_else(|| missing(flow))?;
        let refused = |why: String| Err(Error::new(ErrorKind::Conflict, why));
        if !record.state.is_terminal() {
            return refused(format!("the flow {flow} has not ended; cancel it first"));
        }
        if !self.have_ended(&record).await? {
            return refused(format!(
                "a job of the flow {flow} was sent round again; cancel it, or wait until it has ended"
            ));
        }
        self.put_off(&mut record).await?;
        if self.remove_all(&record).await? {
            return Ok(());
        }
        refused(format!("a job of the flow {flow} runs again; what is left is removed once that has ended"))
    }
}
