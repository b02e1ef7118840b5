//! Defects of giving jobs out.

use std::cmp::Reverse;
use std::collections::HashMap;

use leasehold_core::backend::*;
use leasehold_core::{
    Backend, ClaimId, Deadline, Due, JobRecord, LeasedJob, LimitKey, Reason, Result, State, Timestamp,
};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn claim_badly(&self, deadline: Deadline, mut request: Claim) -> Result<Claimed> {
        let first_time = self.shadow().claims.insert(request.id);
        request.rated |= self.has(Defect::GivesFromRatedQueues);
        let asked = request.clone();
        self.ask_badly(deadline, &mut request, first_time).await?;
        if self.has(Defect::BlocksBehindWhatDoesNotMatch) && self.is_blocked(deadline, &request).await? {
            return Ok(Claimed::default());
        }
        let mut claimed = match self.defect {
            Defect::ReadsThenWrites => self.read_then_write(deadline, request).await?,
            Defect::ChecksALimitThenTakes => self.check_then_take(deadline, request).await?,
            _ => self.inner.claim(deadline, request).await?,
        };
        self.give_badly(deadline, &asked, first_time, &mut claimed).await?;
        let mut shadow = self.shadow();
        shadow.tokens.extend(claimed.jobs.iter().map(|lease| (lease.job.id, lease.token)));
        shadow.given.extend(claimed.jobs.iter().cloned());
        Ok(claimed)
    }

    async fn ask_badly(&self, deadline: Deadline, request: &mut Claim, first_time: bool) -> Result<()> {
        match self.defect {
            Defect::GivesMoreThanAsked => request.limit += 1,
            Defect::IgnoresKinds => request.kinds = KindRule::Any,
            Defect::IgnoresTags => request.tags = TagRule::Any,
            Defect::IgnoresTheLowestPriority => request.min_priority = None,
            Defect::LeasesInDays => request.lease *= 86_400,
            Defect::LeasesInMilliseconds => request.lease /= 1_000,
            Defect::ForgetsAClaim if !first_time => request.id = ClaimId::generate(),
            Defect::ResurrectsEndedJobs => self.resurrect(deadline).await?,
            Defect::GivesExpiredLeasesAtOnce => self.take_back_all(deadline).await?,
            Defect::IgnoresQueues => {
                let known = self.inner.queues(deadline).await?;
                request.queues = known.into_iter().map(|known| known.queue).collect();
            }
            Defect::SwapsTheTagRules => {
                if let TagRule::WorkerHasAll(tags) = &request.tags {
                    request.tags = TagRule::JobHasAll(tags.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn give_badly(
        &self,
        deadline: Deadline,
        asked: &Claim,
        first_time: bool,
        claimed: &mut Claimed,
    ) -> Result<()> {
        let jobs = &mut claimed.jobs;
        match self.defect {
            Defect::GivesInTheWrongOrder => jobs.reverse(),
            Defect::BreaksTiesByIdBeforeDue => {
                jobs.sort_by_key(|lease| (Reverse(lease.job.options.priority), lease.job.id));
            }
            Defect::TakesQueuesInTurn => jobs.sort_by(|a, b| a.job.queue.cmp(&b.job.queue)),
            Defect::ResetsAttemptsAtTheClaim => jobs.iter_mut().for_each(|lease| lease.job.attempt = 1),
            Defect::SaysToWaitTooLong => claimed.next_due = claimed.next_due.map(|wait| wait * 2),
            Defect::SaysToWaitForParkedJobs => {
                let end = Timestamp::MAX.since(self.inner.now(deadline).await?);
                claimed.next_due.get_or_insert(end);
            }
            Defect::HandsAJobOutTwice if jobs.is_empty() && asked.limit > 0 => {
                jobs.extend(self.given_before(asked.id));
            }
            Defect::FillsARepeatedClaim if !first_time => {
                let limit = asked.limit - jobs.len();
                let more = Claim { id: ClaimId::generate(), limit, ..asked.clone() };
                jobs.extend(self.inner.claim(deadline, more).await?.jobs);
            }
            Defect::RemembersMoreThanIsHeld if !first_time => {
                let own = |lease: &&LeasedJob| asked.id.token(lease.job.id) == lease.token;
                *jobs = self.shadow().given.iter().filter(own).cloned().collect();
            }
            Defect::MovesTheLeaseOnARepeatedClaim if !first_time => {
                let until = self.inner.now(deadline).await?.plus(asked.lease);
                jobs.iter_mut().for_each(|lease| lease.job.lease_until = Some(until));
            }
            _ => {}
        }
        Ok(())
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

    async fn take_back_all(&self, deadline: Deadline) -> Result<()> {
        let lost = self.inner.expired(deadline, Expired { limit: 100 }).await?;
        let verdict = Verdict::Retry { reason: Reason::LeaseExpired, delay: Default::default(), queue: None };
        let back = |lost: ExpiredLease| {
            let (job, token, verdict) = (lost.job, lost.token, verdict.clone());
            Settlement { job, token, verdict, failure: None }
        };
        let request = Recover { settlements: lost.into_iter().map(back).collect() };
        self.inner.recover(deadline, request).await.map(drop)
    }

    async fn of_state(&self, deadline: Deadline, state: State, limit: usize) -> Result<Page> {
        let mut filter = Filter::default();
        filter.states = Some(vec![state]);
        self.inner.list(deadline, List { filter, order: Order::OldestFirst, after: None, limit }).await
    }

    /// Whether none of the first hundred jobs that wait matches.
    async fn is_blocked(&self, deadline: Deadline, claim: &Claim) -> Result<bool> {
        let page = self.of_state(deadline, State::Queued, 100).await?;
        let fits = |job: &JobRecord| {
            claim.queues.contains(&job.queue)
                && claim.kinds.takes(&job.kind)
                && claim.tags.takes(&job.options.tags)
        };
        Ok(page.next.is_some() && !page.jobs.iter().any(fits))
    }

    /// Gives out what waited a moment ago, whoever has taken it meanwhile.
    async fn read_then_write(&self, deadline: Deadline, claim: Claim) -> Result<Claimed> {
        let waiting = self.of_state(deadline, State::Queued, claim.limit).await?.jobs;
        tokio::task::yield_now().await;
        let (id, lease) = (claim.id, claim.lease);
        let mut claimed = self.inner.claim(deadline, claim).await?;
        if claimed.jobs.len() < waiting.len() {
            let give = |job: JobRecord| {
                let token = id.token(job.id);
                LeasedJob::new(job, token, lease)
            };
            claimed.jobs = waiting.into_iter().map(give).collect();
        }
        Ok(claimed)
    }

    /// Takes as many jobs of a limit key as there was room for a moment ago.
    async fn check_then_take(&self, deadline: Deadline, claim: Claim) -> Result<Claimed> {
        let mut running: HashMap<LimitKey, u32> = HashMap::new();
        let limits = self.shadow().limits.clone();
        for job in self.of_state(deadline, State::Running, 1_000).await?.jobs {
            if let Some(limit) = limits.get(&job.id) {
                *running.entry(limit.key.clone()).or_default() += 1;
            }
        }
        tokio::task::yield_now().await;
        let mut claimed = self.inner.claim(deadline, claim).await?;
        let mut too_many = Vec::new();
        claimed.jobs.retain(|lease| {
            let Some(limit) = limits.get(&lease.job.id) else { return true };
            let running = running.entry(limit.key.clone()).or_default();
            *running += 1;
            if *running > limit.max {
                let (job, token) = (lease.job.id, lease.token);
                let verdict = Verdict::Release { reason: Reason::LimitReached, delay: Default::default() };
                too_many.push(Settlement { job, token, verdict, failure: None });
            }
            *running <= limit.max
        });
        self.inner.settle(deadline, Settle { settlements: too_many }).await?;
        Ok(claimed)
    }
}
