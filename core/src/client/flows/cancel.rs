use super::Flows;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{FlowRecord, FlowState};
use crate::id::FlowId;

impl Flows {
    /// Cancels a flow: no job of it is let go any more, those that wait are cancelled, and those that run are asked to end.
    /// It is [`Cancelling`](FlowState::Cancelling) until all have, and then [`Cancelled`](FlowState::Cancelled). One that has
    /// ended is left as it is.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such flow; [`Conflict`](ErrorKind::Conflict) if it is still being
    /// enqueued.
    pub async fn cancel(&self, flow: FlowId) -> Result<FlowRecord> {
        let record = self
            .change(flow, |body, hour| match body.state {
                FlowState::Running => {
                    body.state = FlowState::Cancelling;
                    Ok(Some(Some(hour)))
                }
                FlowState::Building | FlowState::Abandoned => Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the flow {flow} is still being enqueued; cancel it once that is done, or let it be abandoned"),
                )),
                _ => Ok(None),
            })
            .await?;
        if record.state != FlowState::Cancelling {
            return Ok(record);
        }
        // What is left undone here is done when it is next looked at, which is now.
        let live = self.remember(&record).await?;
        if let Err(error) = self.cancel_all(&live).await {
            tracing::warn!(%error, %flow, "not all jobs of a flow could be cancelled yet");
        }
        Ok(self.get(flow).await?.unwrap_or(record))
    }
}
