//! One step of the crash matrix: made ready, taken, taken again, and looked at.

use leasehold_core::backend::{
    Answer, Claim, DeleteRegister, EnqueueAnswer, LogAppend, PutRegister, Register, Registers, Renewal,
    Renewed, Settlement, Space, Verdict,
};
use leasehold_core::layer::Cuts;
use leasehold_core::{
    ClaimId, JobId, LeaseToken, Payload, QueueName, RegisterName, State, Timestamp, VersionId, WorkerId,
};
use serde::{Deserialize, Serialize};

use super::matrix::Step;
use crate::bench::{Bench, LEASE, LOST_ATTEMPT, RETRY, SUCCEED, in_time, job, jobs, lines, schedule_name};
use crate::breach::{Done, Trouble};

/// A step with all ids that it needs, so that it can be taken twice and is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) step: Step,
    pub(crate) jobs: Vec<JobId>,
    claim: ClaimId,
    worker: WorkerId,
    schedule: RegisterName,
    tick: Timestamp,
    read: VersionId,
    written: VersionId,
}

/// How many jobs a step touches that touches several.
const SEVERAL: usize = 3;
/// What a log is given.
const LINES: [&str; 2] = ["one", "two"];

impl Plan {
    /// Brings the store to where the step can be taken.
    pub(crate) async fn make_ready(t: &Bench, step: Step) -> Done<Self> {
        let schedule = schedule_name(&format!("of {}", ClaimId::generate()));
        let tick = t.hour();
        let one = matches!(step, Step::Enqueue | Step::Tick);
        let mut new = jobs(if one { 1 } else { SEVERAL });
        if step == Step::Tick {
            new = vec![job().id(JobId::of_tick(&schedule, tick))];
        }
        let plan = Self {
            step,
            jobs: new.iter().map(|job| job.id).collect(),
            claim: ClaimId::generate(),
            worker: WorkerId::generate(),
            schedule,
            tick,
            read: VersionId::generate(),
            written: VersionId::generate(),
        };
        match step {
            Step::Enqueue | Step::EnqueueMany => {}
            Step::Tick => plan.put(t, plan.tick, plan.read, None).await?,
            Step::Claim => drop(t.add_all(new).await?),
            Step::Renew | Step::Succeed | Step::Retry | Step::Recover | Step::AppendLogs => {
                t.add_all(new).await?;
                plan.claim_all(t).await?;
            }
        }
        Ok(plan)
    }

    /// Takes the step, or takes it again.
    pub(crate) async fn take(&self, t: &Bench, cuts: &Cuts) -> Done<Vec<Answer>> {
        match self.step {
            Step::Enqueue | Step::EnqueueMany => self.enqueue(t).await,
            Step::Claim => self.claim_all(t).await,
            Step::Renew => {
                let renewal = |(job, token)| Renewal { job, token, lease: LEASE * 2, progress: None };
                let renewed = t.renew_all(self.leases().map(renewal).collect()).await?;
                let held = |answer| match answer {
                    Renewed::Held { .. } => Answer::Applied,
                    Renewed::Lost => Answer::Lost,
                };
                Ok(renewed.into_iter().map(held).collect())
            }
            Step::Succeed => t.settle_all(self.settlements(&SUCCEED)).await,
            Step::Retry => t.settle_all(self.settlements(&RETRY)).await,
            Step::Recover => t.recover_all(self.settlements(&LOST_ATTEMPT)).await,
            Step::Tick => self.fire(t, cuts).await,
            Step::AppendLogs => {
                let append = |(job, token)| LogAppend { job, token, position: 0, lines: lines(LINES) };
                t.log_all(self.leases().map(append).collect()).await
            }
        }
    }

    /// How many of its jobs show that the step was taken.
    pub(crate) async fn taken(&self, t: &Bench) -> Done<usize> {
        let mut taken = 0;
        for (id, found) in self.jobs.iter().zip(t.find_all(&self.jobs).await?) {
            let Some(job) = found else { continue };
            taken += usize::from(match self.step {
                Step::Enqueue | Step::EnqueueMany | Step::Tick => true,
                Step::Claim => job.state == State::Running,
                Step::Renew => job.lease_until.is_some_and(|until| until.since(t.hour()) > LEASE),
                Step::Succeed => job.state == State::Succeeded,
                Step::Retry | Step::Recover => job.state == State::Queued,
                Step::AppendLogs => t.said(*id).await?.len() == LINES.len(),
            });
        }
        Ok(taken)
    }

    /// What is wrong after the step was taken again and again; none if nothing is.
    pub(crate) async fn wrong(&self, t: &Bench) -> Done<Option<String>> {
        let taken = self.taken(t).await?;
        if taken != self.jobs.len() {
            return Ok(Some(format!("it touched {taken} of {} jobs", self.jobs.len())));
        }
        for found in t.find_all(&self.jobs).await?.into_iter().flatten() {
            let claimed = !matches!(self.step, Step::Enqueue | Step::EnqueueMany | Step::Tick);
            if found.attempt != u32::from(claimed) {
                return Ok(Some(format!("it stands at attempt {}: {found:?}", found.attempt)));
            }
            if self.step == Step::AppendLogs && t.said(found.id).await? != LINES {
                return Ok(Some(format!("its log says {:?}", t.said(found.id).await?)));
            }
        }
        if self.step == Step::Tick && self.schedule(t).await?.version != self.written {
            return Ok(Some("the schedule was not moved on".into()));
        }
        Ok(None)
    }

    /// Ends what the step leaves behind beside its jobs.
    pub(crate) async fn clear(&self, t: &Bench) -> Done {
        if self.step == Step::Tick {
            let request = DeleteRegister::named(Space::Schedule, self.schedule.clone());
            t.backend().delete_register(in_time(0), request).await?;
        }
        Ok(())
    }

    fn leases(&self) -> impl Iterator<Item = (JobId, LeaseToken)> {
        self.jobs.iter().map(|job| (*job, self.claim.token(*job)))
    }

    fn settlements(&self, verdict: &Verdict) -> Vec<Settlement> {
        let settlement = |(job, token)| Settlement { job, token, verdict: verdict.clone(), failure: None };
        self.leases().map(settlement).collect()
    }

    async fn enqueue(&self, t: &Bench) -> Done<Vec<Answer>> {
        let new = self.jobs.iter().map(|id| job().id(*id));
        let answers = t.enqueue(new).await?;
        answers
            .into_iter()
            .map(|answer| match answer.answer {
                EnqueueAnswer::Created => Ok(Answer::Applied),
                EnqueueAnswer::Existing => Ok(Answer::AlreadyApplied),
                other => Err(Trouble::Unmet(format!("a plain job was answered {other:?}"))),
            })
            .collect()
    }

    async fn claim_all(&self, t: &Bench) -> Done<Vec<Answer>> {
        let claim = Claim::new(self.worker, [QueueName::default()], self.jobs.len(), LEASE);
        let given = t.claim_as(Claim { id: self.claim, ..claim }).await?;
        let held = |(job, token)| {
            let found = given.iter().find(|lease| lease.job.id == job && lease.token == token);
            found.map_or(Answer::Lost, |_| Answer::Applied)
        };
        Ok(self.leases().map(held).collect())
    }

    /// Fires the tick as any scheduler does that finds it due.
    async fn fire(&self, t: &Bench, cuts: &Cuts) -> Done<Vec<Answer>> {
        let found = self.schedule(t).await?;
        let answers = self.enqueue(t).await?;
        leasehold_core::fail_point!("tick::acted");
        cuts.reach("tick::acted").await;
        if found.version == self.read {
            self.put(t, self.tick.plus(LEASE), self.written, Some(self.read)).await?;
        }
        Ok(answers)
    }

    async fn schedule(&self, t: &Bench) -> Done<Register> {
        let request = Registers::named(Space::Schedule, self.schedule.clone());
        let found = t.backend().registers(in_time(0), request).await?.registers.pop();
        found.ok_or_else(|| Trouble::Unmet("the schedule is gone".into()))
    }

    async fn put(&self, t: &Bench, next: Timestamp, version: VersionId, expected: Option<VersionId>) -> Done {
        let request = PutRegister::new(Space::Schedule, self.schedule.clone(), Payload::EMPTY, expected);
        let request = PutRegister { next: Some(next), version, ..request };
        Ok(t.backend().put_register(in_time(0), request).await?)
    }
}
