//! Defects of taking jobs in and giving them out.

use leasehold_core::backend::*;
use leasehold_core::{
    Backend, ClaimId, Clock as _, Deadline, Due, Error, ErrorKind, LeasedJob, NewJob, Payload, Result, State,
    SystemClock,
};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn enqueue_badly(
        &self,
        deadline: Deadline,
        mut request: Enqueue,
    ) -> Result<Vec<Enqueued>> {
        request.jobs.iter_mut().for_each(|job| self.alter(job));
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
            Defect::AnswersCreatedForAKnownId => {
                let mut answers = self.inner.enqueue(deadline, request).await?;
                answers.iter_mut().for_each(|answer| answer.answer = EnqueueAnswer::Created);
                Ok(answers)
            }
            _ => self.inner.enqueue(deadline, request).await,
        }
    }

    fn alter(&self, job: &mut NewJob) {
        match self.defect {
            Defect::ReversesPriorities => job.options.priority = -job.options.priority,
            Defect::ForgetsUniqueKeys => job.options.unique = None,
            Defect::IgnoresLimits => job.options.limit = None,
            Defect::IgnoresDueTimes => job.due = Due::Now,
            Defect::AltersPayloads => job.payload = rewritten(&job.payload),
            Defect::UsesTheCallersClock => job.due = Due::At(job.due.by(SystemClock.now())),
            _ => {}
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

    pub(super) async fn claim_badly(&self, deadline: Deadline, mut request: Claim) -> Result<Claimed> {
        let first_time = self.shadow().claims.insert(request.id);
        let asked = request.limit;
        match self.defect {
            Defect::GivesMoreThanAsked => request.limit += 1,
            Defect::IgnoresKinds => request.kinds = KindRule::Any,
            Defect::IgnoresTags => request.tags = TagRule::Any,
            Defect::ForgetsAClaim if !first_time => request.id = ClaimId::generate(),
            Defect::ResurrectsEndedJobs => self.resurrect(deadline).await?,
            Defect::BlocksBehindWhatDoesNotMatch if self.is_blocked(deadline, &request).await? => {
                return Ok(Claimed::default());
            }
            _ => {}
        }
        let id = request.id;
        let mut claimed = self.inner.claim(deadline, request).await?;
        match self.defect {
            Defect::GivesInTheWrongOrder => claimed.jobs.reverse(),
            Defect::HandsAJobOutTwice if claimed.jobs.is_empty() && asked > 0 => {
                claimed.jobs.extend(self.given_before(id));
            }
            _ => {}
        }
        let mut shadow = self.shadow();
        shadow.tokens.extend(claimed.jobs.iter().map(|lease| (lease.job.id, lease.token)));
        shadow.given.extend(claimed.jobs.iter().cloned());
        Ok(claimed)
    }

    /// The job that was given out last, for another holder.
    fn given_before(&self, claim: ClaimId) -> Option<LeasedJob> {
        let mut lease = self.shadow().given.last()?.clone();
        lease.token = claim.token(lease.job.id);
        Some(lease)
    }

    async fn resurrect(&self, deadline: Deadline) -> Result<()> {
        let ids = std::mem::take(&mut self.shadow().ended);
        let action = Action::Requeue { due: Due::Now };
        let request = Amend { select: Select::Ids(ids), action, preview: false };
        self.inner.amend(deadline, request).await.map(drop)
    }

    /// Whether none of the first hundred jobs that wait matches.
    async fn is_blocked(&self, deadline: Deadline, claim: &Claim) -> Result<bool> {
        let mut filter = Filter::default();
        filter.states = Some(vec![State::Queued]);
        let list = List { filter, order: Order::OldestFirst, after: None, limit: 100 };
        let page = self.inner.list(deadline, list).await?;
        let fits = |job: &leasehold_core::JobRecord| {
            claim.queues.contains(&job.queue)
                && claim.kinds.takes(&job.kind)
                && claim.tags.takes(&job.options.tags)
        };
        Ok(page.next.is_some() && !page.jobs.iter().any(fits))
    }
}

/// A payload as a store gives it back that reads it as JSON.
pub(super) fn rewritten(payload: &Payload) -> Payload {
    let value = serde_json::from_slice::<serde_json::Value>(payload.as_bytes());
    value.map_or_else(|_| payload.clone(), |value| Payload::from(value.to_string()))
}
