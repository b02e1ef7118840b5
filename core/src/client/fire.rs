use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tracing::Instrument;

use super::schedules::Schedules;
use super::wake::jittered;
use crate::backend::{Enqueue, EnqueueAnswer, PutRegister, Register, Registers, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobRecord, NewJob};
use crate::schedule::{Overlap, Plan, Run, Schedule, ScheduleRecord, plan};
use crate::telemetry;
use crate::time::{Deadline, Timestamp};

/// How often it is looked for schedules that are due.
const LOOK: Duration = Duration::from_secs(1);
/// How many one look takes.
const BATCH: usize = 100;
/// After how long another scheduler fires what this one decided to fire, unless it is known to be enqueued.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was read of schedules is acted on: who was frozen for longer enqueues no tick whose job may have come and gone.
const FRESH: Duration = Duration::from_mins(1);
/// After how long one that cannot be fired is looked at again.
const PUT_OFF: Duration = Duration::from_mins(1);

impl Schedules {
    /// Fires schedules that are due, for ever; no store's error ends it. Any number may do so at once, as workers that were
    /// built [so](crate::worker::WorkerBuilder::schedules) do: each tick becomes one job over all of them (clause F2). It may
    /// be dropped at any moment.
    pub async fn fire(&self) {
        loop {
            if let Err(error) = self.fire_due().await {
                tracing::warn!(%error, "schedules could not be looked at");
            }
            tokio::time::sleep(jittered(LOOK)).await;
        }
    }

    /// Fires all that is due now, once: for programs that something else starts again and again. See [`fire`](Self::fire).
    ///
    /// # Errors
    /// Only those named at [`Store`](super::Store); a schedule that cannot be fired is looked at again later, and in no
    /// other's way.
    pub async fn fire_due(&self) -> Result<()> {
        let limit = BATCH.min(self.store.limits().page);
        let mut after = None;
        loop {
            let fresh = Deadline::after(FRESH);
            let request = Registers { after, ..Registers::due(Space::Schedule, limit) };
            let page = self.store.backend().registers(self.store.deadline(), request).await?;
            let is_last = page.registers.len() < limit;
            after = page.registers.last().map(|register| register.name.clone());
            for register in page.registers {
                self.fire_or_put_off(register, page.hour, fresh).await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// One that cannot be fired, as one that is of a newer version, is looked at again later, and is in no other's way.
    async fn fire_or_put_off(&self, register: Register, hour: Timestamp, fresh: Deadline) {
        let Err(error) = self.fire_one(register.clone(), hour, fresh).await else { return };
        // Another scheduler was first, or somebody changed it.
        if error.kind() == ErrorKind::Conflict {
            return;
        }
        // What was written of it says when it is looked at again, which is soon.
        if error.is_transient() {
            tracing::debug!(%error, schedule = %register.name, "the store did not answer; the schedule is looked at again soon");
            return;
        }
        tracing::warn!(%error, schedule = %register.name, "a schedule could not be fired; trying again later");
        let put_off = PutRegister::put_off(register, hour.plus(PUT_OFF));
        let _ = self.store.backend().put_register(self.store.deadline(), put_off).await;
    }

    /// Decides what a schedule fires, writes it down, enqueues it, and writes that it is done. Who stops in between is made up
    /// for by the next one, under the same ids; and what was decided is decided once, since each write is over what was read.
    async fn fire_one(&self, register: Register, hour: Timestamp, fresh: Deadline) -> Result<()> {
        let mut record = ScheduleRecord::try_from(register)?;
        if record.body.firing.is_empty() {
            self.decide(&mut record, hour).await?;
            crate::fail_point!("schedule::decided");
        }
        let firing = std::mem::take(&mut record.body.firing);
        if firing.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut record.body.cancels) {
            for job in self.open_jobs(&record).await? {
                self.store.cancel(job.id).await?;
            }
        }
        let span = tracing::info_span!("leasehold.tick", schedule = %record.name, ticks = firing.len());
        for run in self.enqueue_ticks(&record, &firing, fresh).instrument(span).await? {
            record.body.note(run);
        }
        crate::fail_point!("schedule::enqueued");
        let due = record.body.next;
        self.write(&mut record, due).await
    }

    async fn decide(&self, record: &mut ScheduleRecord, hour: Timestamp) -> Result<()> {
        // What was decided is decided, also where the store's clock was set back.
        let hour = hour.max(record.body.until);
        let open = self.open_jobs(record).await?;
        let waits = open.iter().find(|job| job.state.is_waiting());
        let state = waits.or(open.first()).map(|job| job.state);
        let body = &mut record.body;
        let Schedule { rule, catch_up, overlap, paused, .. } = &body.schedule;
        // Told anew: since the last one was, a zone may have changed its rules.
        let planned = AssertUnwindSafe(|| {
            let next = rule.next(body.until).filter(|_| !paused);
            next.map(|next| plan(rule, *catch_up, *overlap, next, state, hour)).unwrap_or_default()
        });
        // A fault of who reads calendars ends no worker.
        let Plan { fire, cancel, next } = catch_unwind(planned).map_err(|_| {
            Error::new(ErrorKind::Internal, format!("the next tick of {rule} cannot be told; report this"))
        })?;
        (body.firing, body.cancels, body.next, body.until) = (fire, cancel, next, hour);
        let due = if body.firing.is_empty() { next } else { Some(hour.plus(PATIENCE)) };
        self.write(record, due).await
    }

    /// The jobs of its latest runs that have not ended; none if it does not matter.
    async fn open_jobs(&self, record: &ScheduleRecord) -> Result<Vec<JobRecord>> {
        if record.schedule.overlap == Overlap::Allow {
            return Ok(Vec::new());
        }
        let found = self.store.find_all(record.body.jobs()).await?;
        Ok(found.into_iter().flatten().filter(|job| !job.state.is_terminal()).collect())
    }

    /// Enqueues the jobs of these ticks; tells what became of each.
    async fn enqueue_ticks(
        &self,
        record: &ScheduleRecord,
        ticks: &[Timestamp],
        fresh: Deadline,
    ) -> Result<Vec<Run>> {
        let job = |tick: &Timestamp| record.schedule.job_of(&record.name, *tick);
        let mut jobs: Vec<NewJob> = ticks.iter().map(job).collect::<Result<_>>()?;
        let limits = self.store.limits();
        telemetry::send(&mut jobs, limits);
        let most = limits.batch_bytes / record.schedule.payload.len().max(1);
        let mut runs = Vec::new();
        for jobs in jobs.chunks(most.clamp(1, limits.batch.min(BATCH))) {
            let request = Enqueue { jobs: jobs.to_vec() };
            match self.store.backend().enqueue(self.store.deadline().min(fresh), request).await {
                Ok(answers) => {
                    runs.extend(answers.into_iter().map(|answer| (answer.job, refusal(answer.answer))));
                }
                // What no store takes in is not tried again each ten seconds for ever.
                Err(error) if is_final(&error) => {
                    runs.extend(jobs.iter().map(|job| (job.id, Some(error.to_string()))));
                }
                Err(error) => return Err(error),
            }
        }
        metrics::counter!("leasehold_ticks_total").increment(ticks.len() as u64);
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

fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge)
}

fn refusal(answer: EnqueueAnswer) -> Option<String> {
    match answer {
        EnqueueAnswer::Refused(error) => Some(error.to_string()),
        _ => None,
    }
}
