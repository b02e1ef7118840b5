use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Flows, Live};
use crate::backend::{Enqueue, EnqueueAnswer, PutRegister, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Body, Flow, FlowRecord, FlowState, part};
use crate::id::FlowId;
use crate::job::NewJob;
use crate::layer::check;
use crate::name::QueueName;
use crate::telemetry;

/// After how long a flow whose enqueue does not go on is abandoned.
const GRACE: Duration = Duration::from_mins(1);
/// How often it is said that it goes on.
const GOES_ON: Duration = Duration::from_secs(15);
/// After how long a flow that was enqueued is looked at, whether or not anything was heard of it.
pub(super) const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How many jobs go to the store in one call.
const CHUNK: usize = 1_000;
/// Bytes of a plan that stand in the flow's own register, which is written often, and of one part of a larger one.
const INLINE: usize = 8 << 10;
const PART: usize = 256 << 10;

impl Flows {
    /// Enqueues a flow: all its jobs, a thousand per call to the store, and then lets go those that wait for no other. None
    /// of them runs before all are there. Answers its id; the same flow again leaves one.
    ///
    /// A process that ends in between leaves a flow of which nothing ever runs, and which is removed some minutes later.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it has no jobs; [`Conflict`](ErrorKind::Conflict) if this took so long that
    /// somebody else took it for abandoned, or if another call enqueues the same flow right now. The same flow may be enqueued
    /// again after any error: that goes on where this ended, and answers at once if the other call was quicker. Only while it
    /// is being removed as abandoned, some ten minutes, that is refused once more; nothing of it ever ran then, and a flow
    /// made anew may be enqueued at once.
    pub async fn enqueue(&self, flow: &Flow) -> Result<FlowId> {
        self.check(flow)?;
        let (mut record, is_new) = self.begin(flow).await?;
        match record.state {
            FlowState::Building => {}
            FlowState::Abandoned => return Err(abandoned(flow.id())),
            _ => return Ok(flow.id()),
        }
        if let Err(error) = self.fill(flow, &mut record, is_new).await {
            if error.kind() == ErrorKind::Conflict {
                return self.overtaken(flow).await;
            }
            return Err(error);
        }
        // Whatever fails here is made up for when the flow is first looked at.
        if let Err(error) = self.begin_to_run(flow, &record).await {
            tracing::warn!(%error, flow = %flow.id(), "the first jobs of a flow could not be let go yet");
        }
        Ok(flow.id())
    }

    /// Refuses what the store would refuse half-way.
    fn check(&self, flow: &Flow) -> Result<()> {
        if flow.is_empty() {
            return Err(Error::invalid("a flow without jobs does nothing; give it one at least"));
        }
        check::retention(flow.retention)?;
        let check = |job| Enqueue { jobs: vec![job] }.check(self.store.limits());
        flow.new_jobs(0, flow.len()).try_for_each(check)
    }

    /// Writes that the flow is being built, unless it is there; tells whether it was not.
    async fn begin(&self, flow: &Flow) -> Result<(FlowRecord, bool)> {
        let (hour, there) = self.read(flow.id()).await?;
        if let Some(there) = there {
            return Ok((there, false));
        }
        let mut body = Body::new(flow.name.to_string(), &flow.plan, flow.retention, hour);
        let parts = flow.plan.parts(self.part_bytes())?;
        // Beside it stand some hundred bytes, which grow.
        if parts.len() == 1 && parts[0].len() <= INLINE.min(self.part_bytes() / 2) {
            body.plan = flow.plan.rows().to_vec();
        } else {
            body.parts = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        }
        let put = body.put(flow.id(), Some(hour.plus(GRACE)), None)?;
        match self.store.backend().put_register(self.store.deadline(), put.clone()).await {
            Ok(()) => Ok((crate::backend::Register::from(put).try_into()?, true)),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let there = self.get(flow.id()).await?.ok_or_else(|| abandoned(flow.id()))?;
                Ok((there, false))
            }
            Err(error) => Err(error),
        }
    }

    fn part_bytes(&self) -> usize {
        PART.min(self.store.limits().payload_bytes)
    }

    /// Enqueues the plan and the jobs, and writes that the flow runs.
    async fn fill(&self, flow: &Flow, record: &mut FlowRecord, is_new: bool) -> Result<()> {
        let mut said = Instant::now();
        if !is_new {
            self.goes_on(record).await?;
        }
        if record.body.parts > 0 {
            for (number, body) in (0..).zip(flow.plan.parts(self.part_bytes())?) {
                let put = PutRegister::new(Space::FlowPlan, part(flow.id(), number)?, body, None);
                match self.store.backend().put_register(self.store.deadline(), put).await {
                    // It was written before, and says the same.
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    written => written?,
                }
            }
        }
        let limits = self.store.limits();
        let mut sent = 0;
        while sent < flow.len() {
            if said.elapsed() > GOES_ON {
                self.goes_on(record).await?;
                said = Instant::now();
            }
            let count = fits(&flow.jobs[sent..], CHUNK.min(limits.batch), limits.batch_bytes);
            self.send(flow.new_jobs(sent, count).collect()).await?;
            sent += count;
        }
        let queues: BTreeSet<&QueueName> = flow.jobs.iter().map(|job| &job.queue).collect();
        queues.into_iter().for_each(|queue| self.store.hear_of(queue));
        let hour = self.store.now().await?;
        record.body.state = FlowState::Running;
        self.write(record, Some(hour.plus(FIRST_LOOK))).await
    }

    async fn send(&self, mut jobs: Vec<NewJob>) -> Result<()> {
        telemetry::send(&mut jobs, self.store.limits());
        for answer in self.store.backend().enqueue(self.store.deadline(), Enqueue { jobs }).await? {
            if let EnqueueAnswer::Refused(error) = answer.answer {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Says that the flow is still being built.
    async fn goes_on(&self, record: &mut FlowRecord) -> Result<()> {
        let hour = self.store.now().await?;
        self.write(record, Some(hour.plus(GRACE))).await
    }

    /// Somebody else wrote the flow while it was being built: another call with the same flow, or who took it for abandoned.
    async fn overtaken(&self, flow: &Flow) -> Result<FlowId> {
        match self.get(flow.id()).await? {
            Some(there) if there.state == FlowState::Building => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the flow {} is being enqueued by somebody else as well; wait for it, or try again",
                    flow.id()
                ),
            )),
            Some(there) if there.state != FlowState::Abandoned => Ok(flow.id()),
            there => {
                self.delete_jobs(flow.id(), flow.plan.size()).await?;
                // Where the flow is still there, it is removed with all parts of its plan.
                if there.is_none() {
                    let parts = u32::try_from(flow.plan.parts(self.part_bytes())?.len()).unwrap_or(u32::MAX);
                    self.delete_parts(&self.parts_of(flow.id(), parts).await?).await?;
                }
                Err(abandoned(flow.id()))
            }
        }
    }

    async fn begin_to_run(&self, flow: &Flow, record: &FlowRecord) -> Result<()> {
        // Not remembered: who enqueues a flow need not be who runs it.
        let live = Live::new(record, flow.plan.clone());
        let roots = flow.plan.rows().iter().enumerate().filter(|(_, row)| row.links().next().is_none());
        self.advance(&live, roots.map(|(row, _)| row).collect()).await
    }
}

/// How many of these jobs one call takes, one at least.
fn fits(jobs: &[NewJob], most: usize, bytes: usize) -> usize {
    let mut left = bytes;
    let fit = jobs.iter().take(most).take_while(|job| {
        let size = job.payload.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    });
    fit.count().max(1)
}

fn abandoned(flow: FlowId) -> Error {
    let why = format!("the enqueue of the flow {flow} took so long that it was abandoned; make it anew");
    Error::new(ErrorKind::Conflict, why)
}
