use std::time::Duration;

use super::schedules::Schedules;
use super::wake::jittered;
use crate::backend::{Enqueue, EnqueueAnswer, PutRegister, Register, Registers, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::id::JobId;
use crate::job::NewJob;
use crate::schedule::{Plan, Run, Schedule, ScheduleRecord, plan};
use crate::time::Timestamp;

/// How often it is looked for schedules that are due.
const LOOK: Duration = Duration::from_secs(1);
/// How many one look takes.
const BATCH: usize = 100;
/// After how long another scheduler fires what this one decided to fire, unless it is known to be enqueued.
const PATIENCE: Duration = Duration::from_secs(10);

impl Schedules {
    /// Fires schedules that are due, for ever; no store's error ends it. Any number may do so at once, as workers that were
    /// built [so](crate::worker::WorkerBuilder::schedules) do: each tick becomes one job over all of them (clause F2). It may
    /// be dropped at any moment.
    pub async fn fire(&self) {
        loop {
            let more = self.fire_due().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "schedules could not be looked at");
                false
            });
            if !more {
                tokio::time::sleep(jittered(LOOK)).await;
            }
        }
    }

    /// Fires what is due; answers whether there may be more.
    async fn fire_due(&self) -> Result<bool> {
        let limit = BATCH.min(self.store.limits().page);
        let request = Registers::due(Space::Schedule, limit);
        let page = self.store.backend().registers(self.store.deadline(), request).await?;
        let (found, mut fired) = (page.registers.len(), 0);
        for register in page.registers {
            let name = register.name.clone();
            match self.fire_one(register, page.hour).await {
                Ok(()) => fired += 1,
                // Another scheduler was first, or somebody changed it.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => tracing::warn!(%error, schedule = %name, "a schedule could not be fired"),
            }
        }
        Ok(found == limit && fired > 0)
    }

    /// Decides what a schedule fires, writes it down, enqueues it, and writes that it is done. Who stops in between is made up
    /// for by the next one, under the same ids; and what was decided is decided once, since each write is over what was read.
    async fn fire_one(&self, register: Register, hour: Timestamp) -> Result<()> {
        let unreadable = rests(&register);
        let mut record = match ScheduleRecord::try_from(register) {
            Ok(record) => record,
            Err(error) => {
                self.store.backend().put_register(self.store.deadline(), unreadable).await?;
                return Err(error);
            }
        };
        if record.body.firing.is_empty() {
            self.decide(&mut record, hour).await?;
        }
        let firing = std::mem::take(&mut record.body.firing);
        if firing.is_empty() {
            return Ok(());
        }
        for run in self.enqueue_ticks(&record, &firing).await? {
            record.body.note(run);
        }
        let due = record.body.next;
        self.write(&mut record, due).await
    }

    async fn decide(&self, record: &mut ScheduleRecord, hour: Timestamp) -> Result<()> {
        let body = &mut record.body;
        let Some(next) = body.next else { return self.write(record, None).await };
        let latest = match body.latest() {
            Some(job) => self.store.find(job).await?.map(|job| (job.id, job.state)),
            None => None,
        };
        let Schedule { rule, catch_up, overlap, .. } = &body.schedule;
        let Plan { fire, cancel, next } =
            plan(rule, *catch_up, *overlap, next, latest.map(|(_, state)| state), hour);
        (body.firing, body.next) = (fire, next);
        let due = if body.firing.is_empty() { next } else { Some(hour.plus(PATIENCE)) };
        self.write(record, due).await?;
        if let (true, Some((job, _))) = (cancel, latest) {
            self.store.cancel(job).await?;
        }
        Ok(())
    }

    /// Enqueues the jobs of these ticks; tells what became of each.
    async fn enqueue_ticks(&self, record: &ScheduleRecord, ticks: &[Timestamp]) -> Result<Vec<Run>> {
        let job = |tick: &Timestamp| record.schedule.job(&record.name, JobId::of_tick(&record.name, *tick));
        let jobs: Vec<NewJob> = ticks.iter().map(job).collect::<Result<_>>()?;
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let runs = match self.store.backend().enqueue(self.store.deadline(), Enqueue { jobs }).await {
            Ok(answers) => answers.into_iter().map(|answer| (answer.job, refusal(answer.answer))).collect(),
            // What no store takes in is not tried again each ten seconds for ever.
            Err(error) if is_final(&error) => {
                ids.into_iter().map(|id| (id, Some(error.to_string()))).collect()
            }
            Err(error) => return Err(error),
        };
        metrics::counter!("leasehold_ticks_total").increment(ticks.len() as u64);
        let runs: Vec<(JobId, Option<String>)> = runs;
        let run = |((job, refused), tick): (_, &Timestamp)| Run { job, tick: Some(*tick), refused };
        Ok(runs.into_iter().zip(ticks).map(run).collect())
    }

    async fn write(&self, record: &mut ScheduleRecord, due: Option<Timestamp>) -> Result<()> {
        let most = self.store.limits().payload_bytes;
        let put = record.body.put(record.name.clone(), due, Some(record.version), most)?;
        let version = put.version;
        self.store.backend().put_register(self.store.deadline(), put).await?;
        record.version = version;
        Ok(())
    }
}

/// Leaves a register as it is, but never due: so that one that cannot be read is in no other's way.
fn rests(register: &Register) -> PutRegister {
    let Register { space, name, body, version, .. } = register.clone();
    PutRegister::new(space, name, body, Some(version))
}

fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge)
}

fn refusal(answer: EnqueueAnswer) -> Option<String> {
    match answer {
        EnqueueAnswer::Refused(error) => Some(error.to_string()),
        _ => None,
    }
}
