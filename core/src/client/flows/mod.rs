//! Flows in a store: a register each, and ordinary jobs, which wait parked until those before them have ended.

mod cache;
mod cancel;
mod drive;
mod enqueue;
mod members;
mod pass;
mod remove;
mod retry;

use std::sync::Arc;
use std::time::Duration;

pub(super) use cache::Cache;
use cache::Live;
pub use members::MemberRecord;

use super::register::Overtaken;
use super::store::Store;
use super::wake::{Wake, jittered};
use crate::backend::{Event, Register, Registers, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Body, FlowRecord, Plan, part, register};
use crate::id::FlowId;
use crate::time::{Deadline, Timestamp};

/// How often a flow is looked at where no event tells that one of its jobs ended.
const POLL: Duration = Duration::from_millis(250);

/// The flows of a [`Store`]. They go on while workers run, or somebody [drives](Self::drive) them.
#[derive(Debug, Clone)]
pub struct Flows {
    store: Store,
}

impl Store {
    /// Its flows.
    pub fn flows(&self) -> Flows {
        Flows { store: self.clone() }
    }
}

impl Flows {
    /// The flow of this id, if there is one.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if it cannot be read, and [`Incompatible`](ErrorKind::Incompatible) if it is of a newer
    /// version.
    pub async fn get(&self, flow: FlowId) -> Result<Option<FlowRecord>> {
        Ok(self.read(flow).await?.1)
    }

    /// A page of the flows, in the order in which their producers made them; go on after the last one's id. Those that cannot
    /// be read are left out.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn list(&self, after: Option<FlowId>, limit: usize) -> Result<Vec<FlowRecord>> {
        let after = after.map(register).transpose()?;
        let request = Registers { after, ..Registers::all(Space::Flow, limit) };
        let page = self.store.backend().registers(self.store.deadline(), request).await?;
        Ok(page.registers.into_iter().filter_map(|register| register.try_into().ok()).collect())
    }

    /// Waits until a flow has ended and returns it, or as it is when `timeout` is over.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such flow.
    pub async fn wait(&self, flow: FlowId, timeout: Duration) -> Result<FlowRecord> {
        let until = Deadline::after(timeout);
        let mut wake = Wake::new(self.store.backend().clone(), None);
        loop {
            wake.listen().await;
            let record = self.get(flow).await?.ok_or_else(|| missing(flow))?;
            let left = until.left();
            if record.state.is_terminal() || left.is_zero() {
                return Ok(record);
            }
            let ended = |event: &Event| match event {
                Event::Changed { job, state, .. } => {
                    state.is_terminal() && FlowId::of_member(*job).is_some_and(|(of, _)| of == flow)
                }
                event => *event == Event::Changes,
            };
            wake.wait(jittered(POLL).min(left), ended).await;
        }
    }

    /// The hour, and a flow.
    async fn read(&self, flow: FlowId) -> Result<(Timestamp, Option<FlowRecord>)> {
        let request = Registers::named(Space::Flow, register(flow)?);
        let page = self.store.backend().registers(self.store.deadline(), request).await?;
        Ok((page.hour, page.registers.into_iter().next().map(FlowRecord::try_from).transpose()?))
    }

    /// Writes a flow over what was read.
    async fn write(&self, record: &mut FlowRecord, next: Option<Timestamp>) -> Result<()> {
        let put = record.body.put(record.id, next, Some(record.version))?;
        let version = put.version;
        self.store.backend().put_register(self.store.deadline(), put).await?;
        record.version = version;
        Ok(())
    }

    /// Writes what `decide` makes of a flow, and when it is to be looked at then, however often others write it meanwhile.
    /// Leaves it alone if that is nothing.
    async fn change(
        &self,
        flow: FlowId,
        decide: impl Fn(&mut Body, Timestamp) -> Result<Option<Option<Timestamp>>>,
    ) -> Result<FlowRecord> {
        let mut overtaken = Overtaken::by(self.store.deadline());
        loop {
            let (hour, there) = self.read(flow).await?;
            let mut record = there.ok_or_else(|| missing(flow))?;
            let Some(next) = decide(&mut record.body, hour)? else { return Ok(record) };
            match self.write(&mut record, next).await {
                Ok(()) => return Ok(record.shown()),
                Err(error) => overtaken.or(error).await?,
            }
        }
    }

    /// A part of the plan of a flow, if it is there.
    async fn part(&self, flow: FlowId, number: u32) -> Result<Option<Register>> {
        let request = Registers::named(Space::FlowPlan, part(flow, number)?);
        let page = self.store.backend().registers(self.store.deadline(), request).await?;
        Ok(page.registers.into_iter().next())
    }

    /// What depends on what in a flow.
    async fn plan(&self, record: &FlowRecord) -> Result<Plan> {
        let body = &record.body;
        if body.parts == 0 {
            return Plan::of(body.plan.iter().cloned(), body.size);
        }
        let mut parts = Vec::new();
        for number in 0..body.parts {
            let missing =
                || Error::corrupt(format!("part {number} of the plan of the flow {} is gone", record.id));
            parts.push(self.part(record.id, number).await?.ok_or_else(missing)?.body);
        }
        let why = |error: Error| {
            Error::corrupt(format!("the plan of the flow {} cannot be read: {error}", record.id))
        };
        Plan::of(Plan::rows_of(&parts).map_err(why)?, body.size)
    }

    /// A flow that goes on, as far as this process knows; none if it does not.
    async fn live(&self, flow: FlowId) -> Result<Option<Arc<Live>>> {
        if let Some(live) = self.store.flow_cache().get(flow).filter(|live| !live.is_doubted()) {
            return Ok(Some(live));
        }
        match self.get(flow).await? {
            Some(record) if record.goes_on() => Ok(Some(self.remember(&record).await?)),
            _ => Ok(None),
        }
    }

    /// What this process knows of a flow that goes on and was read now.
    async fn remember(&self, record: &FlowRecord) -> Result<Arc<Live>> {
        let cache = self.store.flow_cache();
        let live = match cache.get(record.id) {
            Some(live) if live.round == record.body.round => {
                live.trust();
                live
            }
            // What was known of it in another round is no longer so.
            there => {
                let plan = self.plan(record).await?;
                if there.is_some() {
                    cache.remove(record.id);
                }
                cache.add(Live::new(record, plan))
            }
        };
        if record.body.state == crate::flow::FlowState::Cancelling {
            live.cancel();
        }
        Ok(live)
    }
}

fn missing(flow: FlowId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no flow {flow}"))
}
