//! Defects of what is written under leases.

use std::time::Duration;

use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, Due, JobId, Progress, Reason, Result, limits};

use super::taking::rewritten;
use super::{Broken, Defect};

impl Broken {
    pub(super) async fn renew_badly(&self, deadline: Deadline, mut request: Renew) -> Result<Vec<Renewed>> {
        for renewal in &mut request.renewals {
            match self.defect {
                Defect::RenewsInWordOnly => renewal.lease = Duration::ZERO,
                Defect::ClearsProgressOnRenewal => {
                    renewal.progress.get_or_insert_with(Progress::default);
                }
                _ => {}
            }
        }
        let mut answers = self.inner.renew(deadline, request.clone()).await?;
        for (renewal, answer) in request.renewals.into_iter().zip(&mut answers) {
            match (self.defect, &mut *answer) {
                (Defect::HidesACancellation, Renewed::Held { cancel_requested, .. }) => {
                    *cancel_requested = false;
                }
                (Defect::ForgetsACancellationOnRetry, Renewed::Held { cancel_requested, .. }) => {
                    *cancel_requested = self.shadow().cancelled.contains(&renewal.job);
                }
                (Defect::AcceptsAStaleRenewal, Renewed::Lost) => {
                    let Some(token) = self.present(renewal.job) else { continue };
                    let again = Renew { renewals: vec![Renewal { token, ..renewal }] };
                    *answer = self.inner.renew(deadline, again).await?[0];
                }
                _ => {}
            }
        }
        if self.has(Defect::FailsABatchForALostItem) && answers.contains(&Renewed::Lost) {
            answers.fill(Renewed::Lost);
        }
        Ok(answers)
    }

    pub(super) async fn settle_badly(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for settlement in request.settlements {
            let answer = self.settle_one(deadline, settlement.clone()).await?;
            if answer == Answer::Applied {
                self.shadow().settled.insert(settlement.token);
                if settlement.verdict.is_terminal() {
                    self.shadow().ended.push(settlement.job);
                }
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn settle_one(&self, deadline: Deadline, mut settlement: Settlement) -> Result<Answer> {
        if self.has(Defect::RefusesALateHolder) && self.is_late(settlement.job).await? {
            return Ok(Answer::Lost);
        }
        let to_the_end = self.has(Defect::ReleasesToTheEnd) && is_release(&settlement.verdict);
        settlement.verdict = self.judge_badly(settlement.verdict);
        let answer = self.settle_inside(deadline, settlement.clone()).await?;
        if to_the_end && answer == Answer::Applied {
            self.amend_one(settlement.job, Action::Postpone { due: Due::Now }).await?;
        }
        if self.has(Defect::CountsBelowZero) && answer == Answer::AlreadyApplied {
            self.shadow().miscounted += 1;
        }
        match (self.defect, answer) {
            (Defect::AnswersLostToARepeatedSettlement, Answer::AlreadyApplied) => Ok(Answer::Lost),
            (Defect::AnswersAppliedTwice, Answer::AlreadyApplied) => Ok(Answer::Applied),
            (_, Answer::Lost) => self.settle_what_is_lost(deadline, settlement).await,
            _ => Ok(answer),
        }
    }

    fn judge_badly(&self, verdict: Verdict) -> Verdict {
        match (self.defect, verdict) {
            (Defect::ForgetsAnAttempt, Verdict::Retry { reason, delay, .. }) => {
                Verdict::Release { reason, delay }
            }
            (Defect::SpendsAttemptsOnRelease, Verdict::Release { reason, delay }) => {
                Verdict::Retry { reason, delay, queue: None }
            }
            (Defect::RetriesTooEarly, Verdict::Retry { reason, delay, queue }) => {
                Verdict::Retry { reason, delay: delay / 2, queue }
            }
            (Defect::RetriesWithoutABackOff, Verdict::Retry { reason, queue, .. }) => {
                Verdict::Retry { reason, delay: Duration::ZERO, queue }
            }
            (Defect::LosesRetriedJobsInLimbo, Verdict::Retry { reason, queue, .. }) => {
                Verdict::Retry { reason, delay: limits::SPAN, queue }
            }
            (Defect::ForgetsTheReason, Verdict::Fail { .. }) => Verdict::Fail { reason: Reason::Error },
            (Defect::AltersResults, Verdict::Succeed { result }) => {
                Verdict::Succeed { result: result.as_ref().map(rewritten) }
            }
            (_, verdict) => verdict,
        }
    }

    /// What becomes of a settlement that comes too late, or from somebody who never held the job.
    async fn settle_what_is_lost(&self, deadline: Deadline, settlement: Settlement) -> Result<Answer> {
        let given = |shadow: &super::Shadow| shadow.given.iter().any(|lease| lease.token == settlement.token);
        match self.defect {
            Defect::TakesAnyVerdictForTheSame if self.shadow().settled.contains(&settlement.token) => {
                Ok(Answer::AlreadyApplied)
            }
            Defect::ConfusesTheTokensOfAClaim if given(&self.shadow()) => {
                self.settle_anyhow(deadline, settlement).await
            }
            Defect::AcceptsAStaleSettlement => self.settle_anyhow(deadline, settlement).await,
            Defect::AcknowledgesByIdOnly => {
                let answer = self.settle_anyhow(deadline, settlement.clone()).await?;
                let ended = self.amend_one(settlement.job, Action::Cancel).await? == AmendAnswer::Applied;
                Ok(if ended { Answer::Applied } else { answer })
            }
            _ => Ok(Answer::Lost),
        }
    }

    /// Settles under the token of whoever holds the job.
    async fn settle_anyhow(&self, deadline: Deadline, settlement: Settlement) -> Result<Answer> {
        match self.present(settlement.job) {
            Some(token) => self.settle_inside(deadline, Settlement { token, ..settlement }).await,
            None => Ok(Answer::Lost),
        }
    }

    pub(super) async fn settle_inside(&self, deadline: Deadline, settlement: Settlement) -> Result<Answer> {
        Ok(self.inner.settle(deadline, Settle { settlements: vec![settlement] }).await?[0])
    }

    async fn is_late(&self, job: JobId) -> Result<bool> {
        let now = self.inner.now(Deadline::default()).await?;
        let record = self.record(job).await?;
        Ok(record.and_then(|job| job.lease_until).is_some_and(|until| until < now))
    }

    pub(super) async fn expired_badly(
        &self,
        deadline: Deadline,
        request: Expired,
    ) -> Result<Vec<ExpiredLease>> {
        let mut lost = self.inner.expired(deadline, request).await?;
        self.shadow().lost.extend(lost.iter().map(|lease| lease.token));
        match self.defect {
            Defect::ListsTheLatestLossFirst => lost.reverse(),
            Defect::TellsNoPolicy => lost.iter_mut().for_each(|lease| lease.retry = None),
            _ => {}
        }
        Ok(lost)
    }

    pub(super) async fn recover_badly(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for settlement in request.settlements {
            if self.has(Defect::RecoversOneACall) && answers.contains(&Answer::Applied) {
                answers.push(Answer::Lost);
                continue;
            }
            answers.push(self.recover_one(deadline, settlement).await?);
        }
        Ok(answers)
    }

    async fn recover_one(&self, deadline: Deadline, mut settlement: Settlement) -> Result<Answer> {
        match self.defect {
            Defect::RecoversLiveLeases => self.settle_inside(deadline, settlement).await,
            Defect::TrustsWhatItRead if self.shadow().lost.contains(&settlement.token) => {
                self.settle_inside(deadline, settlement).await
            }
            Defect::CountsNoCrash if self.is_late(settlement.job).await? => {
                self.settle_inside(deadline, settlement).await
            }
            Defect::GivesBackTheAttemptOfACrash | Defect::SweepsBeyondTheLastAttempt
                if self.is_late(settlement.job).await? =>
            {
                settlement.verdict = self.take_back_badly(settlement.verdict);
                self.settle_inside(deadline, settlement).await
            }
            Defect::AcceptsAStaleRecovery => {
                let token = self.present(settlement.job).unwrap_or(settlement.token);
                self.recover_inside(deadline, Settlement { token, ..settlement }).await
            }
            Defect::SweepsByIdOnly => {
                let answer = self.recover_inside(deadline, settlement.clone()).await?;
                let again = Action::Requeue { due: Due::Now };
                let woken = answer == Answer::Lost
                    && self.amend_one(settlement.job, again).await? == AmendAnswer::Applied;
                Ok(if woken { Answer::Applied } else { answer })
            }
            _ => {
                settlement.verdict = self.take_back_badly(settlement.verdict);
                settlement.failure =
                    settlement.failure.filter(|_| !self.has(Defect::ForgetsFailuresOfCrashes));
                let answer = self.recover_inside(deadline, settlement).await?;
                let twice = self.has(Defect::CountsACrashForEachSweeper) && answer == Answer::AlreadyApplied;
                Ok(if twice { Answer::Applied } else { answer })
            }
        }
    }

    fn take_back_badly(&self, verdict: Verdict) -> Verdict {
        match (self.defect, verdict) {
            (Defect::GivesBackTheAttemptOfACrash, Verdict::Retry { reason, delay, .. }) => {
                Verdict::Release { reason, delay }
            }
            (Defect::SweepsBeyondTheLastAttempt, _) => {
                Verdict::Release { reason: Reason::LeaseExpired, delay: Duration::ZERO }
            }
            (Defect::RecoversWithoutAWait, Verdict::Retry { reason, queue, .. }) => {
                Verdict::Retry { reason, delay: Duration::ZERO, queue }
            }
            (_, verdict) => verdict,
        }
    }

    async fn recover_inside(&self, deadline: Deadline, settlement: Settlement) -> Result<Answer> {
        Ok(self.inner.recover(deadline, Recover { settlements: vec![settlement] }).await?[0])
    }
}

fn is_release(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Release { delay, .. } if delay.is_zero())
}
