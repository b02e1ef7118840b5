use super::{Kind, Trip};
use crate::backend::{DeleteRegister, PutRegister, Register, SetQueue};
use crate::error::{ErrorKind, Result};
use crate::flow::{FlowRecord, Member, register};
use crate::id::FlowId;
use crate::job::JobRecord;
use crate::name::QueueName;

/// How many flows are looked at in one call.
const FLOWS: usize = 200;

impl Trip {
    /// Gives the other store the settings of queues for which it has none: before their jobs come, so that a pause holds there
    /// from the first one on.
    pub(super) async fn bring_queues(&mut self) -> Result<()> {
        let there = self.order.to.queues().await?;
        for record in self.order.from.queues().await? {
            let is_set = there.iter().any(|other| other.queue == record.queue && other.changed_at.is_some());
            if record.changed_at.is_none() || is_set || !self.is_of(&record.queue) {
                continue;
            }
            let request = SetQueue { queue: record.queue, settings: record.settings };
            self.order.to.backend().set_queue(self.order.to.deadline(), request).await?;
            self.account.queues += 1;
        }
        Ok(())
    }

    fn is_of(&self, queue: &QueueName) -> bool {
        self.order.filter.queues.as_ref().is_none_or(|queues| queues.contains(queue))
    }

    #[cfg(feature = "schedules")]
    pub(super) async fn bring_schedules(&mut self) -> Result<()> {
        let (here, there) = (self.order.from.schedules(), self.order.to.schedules());
        let mut after = None;
        loop {
            let limit = self.order.from.limits().page;
            let page = here.list(after, limit).await?;
            let is_last = page.len() < limit;
            after = page.last().map(|record| record.name.clone());
            for record in page {
                if !self.is_of(&record.schedule.queue) {
                    continue;
                }
                self.check_lock()?;
                let brought = match self.order.kind {
                    Kind::Move => self.move_schedule(&here, &there, &record.name).await?,
                    Kind::Copy if there.get(&record.name).await?.is_some() => false,
                    Kind::Copy => {
                        let schedule = crate::schedule::Schedule { paused: true, ..record.schedule };
                        there.put(&record.name, schedule).await?;
                        true
                    }
                };
                if brought {
                    self.account.schedules += 1;
                } else {
                    self.account.schedules_held.push(record.name.to_string());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Tells whether it could; not if the other store has one of the name.
    #[cfg(feature = "schedules")]
    async fn move_schedule(
        &self,
        here: &crate::client::Schedules,
        there: &crate::client::Schedules,
        name: &crate::name::RegisterName,
    ) -> Result<bool> {
        let mut overtaken = crate::client::register::Overtaken::by(self.order.from.deadline());
        loop {
            match here.move_to(name, there).await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                Err(_) if there.get(name).await?.is_some() => return Ok(false),
                // It is just firing.
                Err(error) => overtaken.or(error).await?,
            }
        }
    }

    #[cfg(not(feature = "schedules"))]
    #[expect(clippy::unused_async, clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(super) async fn bring_schedules(&mut self) -> Result<()> {
        Ok(())
    }

    /// Begins another round over the store; answers which flows have ended by now. What they are made of is found in this round,
    /// and then they may follow.
    pub(super) async fn begin_round(&mut self) -> Result<Vec<FlowId>> {
        self.flows.clear();
        self.account.in_flows = 0;
        let (mut ended, mut after) = (Vec::new(), None);
        while self.is_whole() {
            let limit = FLOWS.min(self.order.from.limits().page);
            let page = self.order.from.flows().list(after, limit).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            ended.extend(page.iter().filter(|flow| flow.state.is_terminal()).map(|flow| flow.id));
        }
        Ok(ended)
    }

    /// Learns whether the flows of these jobs go on: their jobs stay where their flow is looked after. A flow is there before its
    /// jobs are.
    pub(super) async fn look_at_flows_of(&mut self, jobs: &[JobRecord]) -> Result<()> {
        for flow in jobs.iter().filter_map(Member::of).map(|member| member.flow) {
            if !self.flows.contains_key(&flow) {
                let record = self.order.from.flows().get(flow).await?;
                self.flows.insert(flow, record.is_some_and(|record| !record.state.is_terminal()));
            }
        }
        Ok(())
    }

    /// Brings flows over that had ended when this round began.
    pub(super) async fn bring_flows(&mut self, ended: Vec<FlowId>) -> Result<()> {
        for flow in ended {
            if self.is_stopped() {
                break;
            }
            let record = self.order.from.flows().get(flow).await?;
            if let Some(record) = record.filter(|record| record.state.is_terminal()) {
                self.bring_flow(record).await?;
            }
        }
        Ok(())
    }

    async fn bring_flow(&mut self, flow: FlowRecord) -> Result<()> {
        let (here, there) = (self.order.from.flows(), self.order.to.flows());
        let parts = here.parts_of(flow.id, flow.body.parts).await?;
        self.check_lock()?;
        for part in &parts {
            self.put_there(copied(part)).await?;
        }
        // The last one, since it tells of all others.
        let next = flow.finished_at.and_then(|at| flow.body.retention.of(flow.state.as_job()).until(at));
        let is_new = there.get(flow.id).await?.is_none();
        if is_new {
            self.put_there(flow.body.put(flow.id, next, None)?).await?;
        }
        if self.order.kind == Kind::Copy {
            self.account.flows += u64::from(is_new);
            return Ok(());
        }
        let expected = Some(flow.version);
        let request = DeleteRegister {
            expected,
            ..DeleteRegister::named(crate::backend::Space::Flow, register(flow.id)?)
        };
        // Somebody who retried it meanwhile keeps it.
        if self.order.from.backend().delete_register(self.order.from.deadline(), request).await? {
            here.delete_parts(&parts).await?;
            self.account.flows += 1;
        }
        Ok(())
    }

    /// Writes a register that the other store may have from an earlier run.
    async fn put_there(&self, put: PutRegister) -> Result<()> {
        let to = &self.order.to;
        match to.backend().put_register(to.deadline(), put).await {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            put => put,
        }
    }
}

fn copied(register: &Register) -> PutRegister {
    let Register { space, name, body, next, expires, .. } = register.clone();
    PutRegister { next, expires, ..PutRegister::new(space, name, body, None) }
}
