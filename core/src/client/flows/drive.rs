use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::super::wake::jittered;
use super::Flows;
use super::enqueue::FIRST_LOOK;
use crate::backend::{PutRegister, Register, Registers, Space};
use crate::error::{ErrorKind, Result};
use crate::flow::{FlowRecord, FlowState};
use crate::time::Timestamp;

/// How often it is looked for flows that are due, by who drives them by hand.
const LOOK: Duration = Duration::from_secs(5);
/// How many one look takes.
const BATCH: usize = 100;
/// How many are looked at beside each other.
const BESIDE: usize = 4;
/// After how long one that cannot be driven is looked at again.
const PUT_OFF: Duration = Duration::from_mins(1);
/// How long a flow in which nothing happens is left alone at most.
const LONGEST: Duration = Duration::from_mins(1);
/// How many times as long as a look at all of a flow takes it is left alone at least.
const PAUSE: u32 = 20;

impl Flows {
    /// Looks after flows, for ever; no store's error ends it. Any number may do so at once, as all workers do: it is of use where
    /// no worker runs, but [consumers](crate::Consumer). It may be dropped at any moment.
    pub async fn drive(&self) {
        loop {
            self.drive_if_due(Duration::ZERO).await;
            tokio::time::sleep(jittered(LOOK)).await;
        }
    }

    /// The same once, unless somebody in this process did within this time.
    pub(crate) async fn drive_if_due(&self, since: Duration) {
        if !self.store.flow_cache().is_time(since) {
            return;
        }
        if let Err(error) = self.drive_due().await {
            tracing::warn!(%error, "flows could not be looked at");
        }
    }

    /// Looks after all flows that are due now, once.
    ///
    /// # Errors
    /// Only those named at [`Store`](crate::Store). What fails for one flow alone is reported, and tried again later.
    pub async fn drive_due(&self) -> Result<()> {
        let limit = BATCH.min(self.store.limits().page);
        let mut after = None;
        loop {
            let request = Registers { after, ..Registers::due(Space::Flow, limit) };
            let page = self.store.backend().registers(self.store.deadline(), request).await?;
            let is_last = page.registers.len() < limit;
            after = page.registers.last().map(|register| register.name.clone());
            // Those that stand further behind are looked at later.
            let (hour, read) = (page.hour, Instant::now());
            futures::stream::iter(page.registers)
                .for_each_concurrent(BESIDE, |register| {
                    self.drive_or_put_off(register, hour.plus(read.elapsed()))
                })
                .await;
            if is_last {
                return Ok(());
            }
        }
    }

    /// One that cannot be driven, as one that is of a newer version, is looked at again later, and is in no other's way.
    async fn drive_or_put_off(&self, register: Register, hour: Timestamp) {
        let Err(error) = self.drive_one(register.clone(), hour).await else { return };
        // Somebody else looks after it, or has changed it.
        if error.kind() == ErrorKind::Conflict {
            return;
        }
        tracing::warn!(%error, flow = %register.name, "a flow could not be looked after; trying again later");
        if error.is_transient() {
            return;
        }
        let put_off = PutRegister::put_off(register, hour.plus(PUT_OFF));
        let _ = self.store.backend().put_register(self.store.deadline(), put_off).await;
    }

    async fn drive_one(&self, register: Register, hour: Timestamp) -> Result<()> {
        let record = FlowRecord::try_from(register)?;
        match record.state {
            FlowState::Running | FlowState::Cancelling => self.look_after(record, hour).await,
            FlowState::Building | FlowState::Abandoned => self.abandon(record).await,
            FlowState::Succeeded | FlowState::Failed | FlowState::Cancelled => self.remove(record).await,
        }
    }

    /// Looks at all of a flow, and does what nobody heard that it was to be done.
    async fn look_after(&self, mut record: FlowRecord, hour: Timestamp) -> Result<()> {
        let began = Instant::now();
        let pause = FIRST_LOOK.max(Duration::from_millis(record.body.look_ms));
        // So that others look elsewhere meanwhile.
        self.write(&mut record, Some(hour.plus(pause))).await?;
        let live = self.remember(&record).await?;
        if live.is_cancelling() {
            self.cancel_all(&live).await?;
        } else {
            self.advance_all(&live).await?;
        }
        let (counts, took) = (live.progress().counts(), began.elapsed());
        if counts.open == 0 {
            return Ok(());
        }
        let longer = if counts == record.body.counts { (pause * 2).min(LONGEST) } else { FIRST_LOOK };
        let pause = longer.max(took * PAUSE);
        let look_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        if (counts, look_ms) == (record.body.counts, record.body.look_ms) {
            return Ok(());
        }
        (record.body.counts, record.body.look_ms) = (counts, look_ms);
        self.write(&mut record, Some(hour.plus(took + pause))).await
    }
}
