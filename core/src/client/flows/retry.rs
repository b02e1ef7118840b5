use super::members::Walk;
use super::{Flows, missing};
use crate::backend::Action;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{FlowRecord, FlowState};
use crate::id::FlowId;
use crate::job::{Due, JobRecord, State};

impl Flows {
    /// Sends round again what did not succeed of a flow that has [failed](FlowState::Failed) or was
    /// [cancelled](FlowState::Cancelled): the jobs that failed or were cancelled wait as they did when the flow was enqueued, with
    /// their attempts counted anew, and run when what they wait for has succeeded. Those that succeeded stay as they are. One
    /// that goes on, or has succeeded, is left as it is.
    ///
    /// If this is cut off, the flow has ended as before and some of its jobs wait for nobody; the same call again does the rest.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such flow; [`Conflict`](ErrorKind::Conflict) if it is still being
    /// enqueued.
    pub async fn retry(&self, flow: FlowId) -> Result<FlowRecord> {
        let record = self.get(flow).await?.ok_or_else(|| missing(flow))?;
        match record.state {
            FlowState::Failed | FlowState::Cancelled => {}
            FlowState::Building | FlowState::Abandoned => return Err(unfinished(flow)),
            FlowState::Running | FlowState::Cancelling | FlowState::Succeeded => return Ok(record),
        }
        // First they wait, so that who leads the flow on finds none that has ended as it did before.
        self.park_unwell(&record).await?;
        let retried = self.change(flow, |body, hour| match body.state {
            FlowState::Failed | FlowState::Cancelled => {
                body.retry();
                Ok(Some(Some(hour)))
            }
            // Somebody else was quicker.
            _ => Ok(None),
        });
        let retried = retried.await?;
        // What is left undone here is done when it is next looked at, which is now.
        let live = self.remember(&retried).await?;
        if let Err(error) = self.advance_all(&live).await {
            tracing::warn!(%error, %flow, "the first jobs of a flow that is retried could not be let go yet");
        }
        Ok(self.get(flow).await?.unwrap_or(retried))
    }

    /// Parks the jobs that did not succeed.
    async fn park_unwell(&self, record: &FlowRecord) -> Result<()> {
        let is_unwell = |job: &JobRecord| matches!(job.state, State::Failed | State::Cancelled);
        let mut walk = Walk::of(record);
        while let Some(found) = self.next_of(&mut walk).await? {
            let unwell = found.into_iter().filter(|(_, job)| is_unwell(job));
            let unwell: Vec<u32> = unwell.map(|(number, _)| number).collect();
            if !unwell.is_empty() {
                self.amend(record.id, &unwell, Action::Requeue { due: Due::PARKED }).await?;
            }
        }
        Ok(())
    }
}

fn unfinished(flow: FlowId) -> Error {
    let why = format!("the flow {flow} is still being enqueued; there is nothing to be retried");
    Error::new(ErrorKind::Conflict, why)
}
