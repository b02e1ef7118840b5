//! Defects of taking jobs in.

use leasehold_core::backend::*;
use leasehold_core::{
    Backend, Clock as _, Deadline, Due, Error, ErrorKind, JobId, JobOptions, LimitKey, NewJob, OnConflict,
    Payload, Result, State, SystemClock, UniqueScope, WhenFull, limits,
};

use super::{Broken, Defect};

/// How many jobs a capped store holds; pymjq's default held as many small ones.
const CAP: usize = 850;

impl Broken {
    pub(super) async fn enqueue_badly(
        &self,
        deadline: Deadline,
        mut request: Enqueue,
    ) -> Result<Vec<Enqueued>> {
        for job in &mut request.jobs {
            if let Some(limit) = job.options.limit.clone() {
                self.shadow().limits.insert(job.id, limit);
            }
            self.alter(job);
        }
        match self.defect {
            Defect::LosesOneOfABatch if request.jobs.len() > 2 => {
                let at = request.jobs.len() / 2;
                let lost = request.jobs.remove(at);
                let mut answers = self.inner.enqueue(deadline, request).await?;
                answers.insert(at, Enqueued { job: lost.id, answer: EnqueueAnswer::Created });
                Ok(answers)
            }
            Defect::TakesBatchesByHalves if request.jobs.len() > 1 => {
                let second = request.jobs.split_off(request.jobs.len() / 2);
                let mut answers = self.inner.enqueue(deadline, request).await?;
                tokio::task::yield_now().await;
                answers.extend(self.inner.enqueue(deadline, Enqueue { jobs: second }).await?);
                Ok(answers)
            }
            Defect::FailsABatchForADuplicate => self.enqueue_until_a_duplicate(deadline, request).await,
            Defect::TakesARetriedEnqueueTwice => self.enqueue_twins(deadline, request).await,
            Defect::ReplacesAgainWhenRepeated => self.enqueue_newcomers(deadline, request).await,
            Defect::OverwritesWaitingJobs => {
                let answers = self.inner.enqueue(deadline, request).await?;
                self.drop_the_oldest(deadline).await?;
                Ok(answers)
            }
            _ => {
                let mut answers = self.inner.enqueue(deadline, request).await?;
                self.answer_badly(&mut answers);
                Ok(answers)
            }
        }
    }

    fn alter(&self, job: &mut NewJob) {
        let options = &mut job.options;
        match self.defect {
            Defect::ReversesPriorities => options.priority = -options.priority,
            Defect::ForgetsUniqueKeys => options.unique = None,
            Defect::ForgetsHeaders => options.headers.clear(),
            Defect::IgnoresLimits | Defect::ChecksALimitThenTakes => options.limit = None,
            Defect::IgnoresOwnLeases => options.lease = None,
            Defect::IgnoresDueTimes => job.due = Due::Now,
            // Only ids that are computed are of this version.
            Defect::GivesTicksIdsOfItsOwn if job.id.as_uuid().get_version_num() == 5 => {
                job.id = JobId::generate();
            }
            Defect::AltersPayloads => job.payload = rewritten(&job.payload),
            Defect::UsesTheCallersClock => job.due = Due::At(job.due.by(SystemClock.now())),
            Defect::KeepsFailuresLikeSuccesses => options.retention.failed = options.retention.succeeded,
            Defect::ResetsAttemptsAtTheClaim => options.max_attempts = limits::ATTEMPTS,
            Defect::MakesEveryLimitAMutex => options.limit.iter_mut().for_each(|limit| limit.max = 1),
            Defect::WaitsForRoomAllTheSame => {
                options.limit.iter_mut().for_each(|limit| limit.when_full = WhenFull::Wait);
            }
            Defect::CountsLimitsByQueue => {
                if let Some(limit) = &mut options.limit {
                    limit.key = LimitKey::new(format!("{} {}", job.queue, limit.key)).expect("a name");
                }
            }
            _ => self.alter_scope(options),
        }
    }

    fn alter_scope(&self, options: &mut JobOptions) {
        let Some(unique) = &mut options.unique else { return };
        unique.on_conflict = match (self.defect, unique.on_conflict) {
            (Defect::KeepsWhatItSaysIsReplaced, _) => OnConflict::Keep,
            (Defect::DebouncesForEver, OnConflict::Debounce { .. }) => OnConflict::Replace,
            (_, on_conflict) => on_conflict,
        };
        unique.scope = match (self.defect, unique.scope) {
            (Defect::FreesKeysAtTheClaim, UniqueScope::UntilFinished) => UniqueScope::UntilClaimed,
            (Defect::HoldsKeysPastTheClaim, UniqueScope::UntilClaimed) => UniqueScope::UntilFinished,
            (Defect::NeverFreesKeys, UniqueScope::UntilFinished) => UniqueScope::For(limits::SPAN),
            (Defect::EndsPeriodsWithTheJob, UniqueScope::For(_)) => UniqueScope::UntilFinished,
            (_, scope) => scope,
        };
    }

    fn answer_badly(&self, answers: &mut [Enqueued]) {
        for answer in answers {
            let known = matches!(answer.answer, EnqueueAnswer::Existing);
            let held = matches!(answer.answer, EnqueueAnswer::Held);
            match self.defect {
                Defect::KeepsWhatItSaysIsReplaced if held => answer.answer = EnqueueAnswer::Replaced,
                Defect::AnswersCreatedForAKnownId => answer.answer = EnqueueAnswer::Created,
                Defect::CountsARepeatedEnqueue if known => self.shadow().miscounted += 1,
                _ => {}
            }
        }
    }

    async fn enqueue_until_a_duplicate(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        let (mut answers, mut failed) = (Vec::new(), false);
        for job in request.jobs {
            if failed {
                let refused = EnqueueAnswer::Refused(Error::new(ErrorKind::Conflict, "a duplicate"));
                answers.push(Enqueued { job: job.id, answer: refused });
                continue;
            }
            let answer = self.inner.enqueue(deadline, Enqueue { jobs: vec![job] }).await?.remove(0);
            failed = matches!(answer.answer, EnqueueAnswer::Held);
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Takes a job whose id is there under another one.
    async fn enqueue_twins(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        let mut jobs = request.jobs;
        let known = self.inner.find(deadline, Find { ids: jobs.iter().map(|job| job.id).collect() }).await?;
        for (job, _) in jobs.iter_mut().zip(known).filter(|(_, known)| known.is_some()) {
            job.id = JobId::generate();
        }
        self.inner.enqueue(deadline, Enqueue { jobs }).await
    }

    /// Takes newcomers that come again for others.
    async fn enqueue_newcomers(&self, deadline: Deadline, mut request: Enqueue) -> Result<Vec<Enqueued>> {
        let ids: Vec<JobId> = request.jobs.iter().map(|job| job.id).collect();
        for job in &mut request.jobs {
            if self.shadow().newcomers.contains(&job.id) {
                job.id = JobId::generate();
            }
        }
        let answers = self.inner.enqueue(deadline, request).await?;
        let replaced = |answer: &Enqueued| matches!(answer.answer, EnqueueAnswer::Replaced);
        let newcomers = ids.into_iter().zip(&answers).filter(|(_, answer)| replaced(answer));
        self.shadow().newcomers.extend(newcomers.map(|(id, _)| id));
        Ok(answers)
    }

    async fn drop_the_oldest(&self, deadline: Deadline) -> Result<()> {
        let counts = self.inner.counts(deadline, Counts::default()).await?;
        let waiting: u64 = counts.iter().map(|queue| queue.of(State::Queued)).sum();
        let limit = (waiting as usize).saturating_sub(CAP);
        let mut filter = Filter::default();
        filter.states = Some(vec![State::Queued]);
        let as_of = self.inner.now(deadline).await?;
        let select = Select::Matching { filter, as_of, after: None, limit };
        let request = Amend { select, action: Action::Delete, preview: limit == 0 };
        self.inner.amend(deadline, request).await.map(drop)
    }
}

/// A payload as a store gives it back that reads it as JSON.
pub(super) fn rewritten(payload: &Payload) -> Payload {
    let value = serde_json::from_slice::<serde_json::Value>(payload.as_bytes());
    value.map_or_else(|_| payload.clone(), |value| Payload::from(value.to_string()))
}
