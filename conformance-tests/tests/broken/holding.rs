//! Defects of what is written under leases.

use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, Result};

use super::giving::rewritten;
use super::{Broken, Defect};

impl Broken {
    pub(super) async fn renew_badly(&self, deadline: Deadline, mut request: Renew) -> Result<Vec<Renewed>> {
        if self.has(Defect::RenewsInWordOnly) {
            request.renewals.iter_mut().for_each(|renewal| renewal.lease = std::time::Duration::ZERO);
        }
        let mut answers = self.inner.renew(deadline, request.clone()).await?;
        for (renewal, answer) in request.renewals.into_iter().zip(&mut answers) {
            match (self.defect, &mut *answer) {
                (Defect::HidesACancellation, Renewed::Held { cancel_requested, .. }) => {
                    *cancel_requested = false;
                }
                (Defect::AcceptsAStaleRenewal, Renewed::Lost) => {
                    let Some(token) = self.present(renewal.job) else { continue };
                    let again = Renew { renewals: vec![Renewal { token, ..renewal }] };
                    *answer = self.inner.renew(deadline, again).await?[0];
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    pub(super) async fn settle_badly(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for settlement in request.settlements {
            let answer = self.settle_one(deadline, settlement.clone()).await?;
            if answer == Answer::Applied && settlement.verdict.is_terminal() {
                self.shadow().ended.push(settlement.job);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn settle_one(&self, deadline: Deadline, mut settlement: Settlement) -> Result<Answer> {
        if self.has(Defect::RefusesALateHolder) && self.is_late(settlement.job).await? {
            return Ok(Answer::Lost);
        }
        settlement.verdict = match (self.defect, settlement.verdict) {
            (Defect::ForgetsAnAttempt, Verdict::Retry { reason, delay }) => {
                Verdict::Release { reason, delay }
            }
            (Defect::SpendsAttemptsOnRelease, Verdict::Release { reason, delay }) => {
                Verdict::Retry { reason, delay }
            }
            (Defect::RetriesTooEarly, Verdict::Retry { reason, delay }) => {
                Verdict::Retry { reason, delay: delay / 2 }
            }
            (Defect::AltersResults, Verdict::Succeed { result }) => {
                Verdict::Succeed { result: result.as_ref().map(rewritten) }
            }
            (_, verdict) => verdict,
        };
        let answer = self.settle_inside(deadline, settlement.clone()).await?;
        match (self.defect, answer) {
            (Defect::AnswersLostToARepeatedSettlement, Answer::AlreadyApplied) => Ok(Answer::Lost),
            (Defect::AcceptsAStaleSettlement, Answer::Lost) => match self.present(settlement.job) {
                Some(token) => self.settle_inside(deadline, Settlement { token, ..settlement }).await,
                None => Ok(answer),
            },
            _ => Ok(answer),
        }
    }

    async fn settle_inside(&self, deadline: Deadline, settlement: Settlement) -> Result<Answer> {
        Ok(self.inner.settle(deadline, Settle { settlements: vec![settlement] }).await?[0])
    }

    async fn is_late(&self, job: leasehold_core::JobId) -> Result<bool> {
        let now = self.inner.now(Deadline::default()).await?;
        let record = self.record(job).await?;
        Ok(record.and_then(|job| job.lease_until).is_some_and(|until| until < now))
    }

    pub(super) async fn recover_badly(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for settlement in request.settlements {
            answers.push(self.recover_one(deadline, settlement).await?);
        }
        Ok(answers)
    }

    async fn recover_one(&self, deadline: Deadline, mut settlement: Settlement) -> Result<Answer> {
        match self.defect {
            Defect::RecoversLiveLeases => self.settle_inside(deadline, settlement).await,
            Defect::CountsNoCrash if self.is_late(settlement.job).await? => {
                self.settle_inside(deadline, settlement).await
            }
            Defect::GivesBackTheAttemptOfACrash if self.is_late(settlement.job).await? => {
                if let Verdict::Retry { reason, delay } = settlement.verdict {
                    settlement.verdict = Verdict::Release { reason, delay };
                }
                self.settle_inside(deadline, settlement).await
            }
            Defect::AcceptsAStaleRecovery => {
                let token = self.present(settlement.job).unwrap_or(settlement.token);
                self.recover_inside(deadline, Settlement { token, ..settlement }).await
            }
            _ => self.recover_inside(deadline, settlement).await,
        }
    }

    async fn recover_inside(&self, deadline: Deadline, settlement: Settlement) -> Result<Answer> {
        Ok(self.inner.recover(deadline, Recover { settlements: vec![settlement] }).await?[0])
    }

    pub(super) async fn log_badly(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for append in request.appends {
            let mut answer = self.log_one(deadline, append.clone()).await?;
            if answer == Answer::Lost && self.has(Defect::AcceptsAStaleLogLine) {
                let token = self.present(append.job).unwrap_or(append.token);
                answer = self.log_one(deadline, LogAppend { token, ..append.clone() }).await?;
            }
            if answer == Answer::Applied && self.has(Defect::CapsNoLog) {
                self.keep_lines(append).await?;
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn log_one(&self, deadline: Deadline, mut append: LogAppend) -> Result<Answer> {
        if self.has(Defect::TakesLinesTwice) {
            let source = LogSource::Job(append.job);
            let read = ReadLogs { source, after: 0, limit: 1_000 };
            append.position += self.inner.read_logs(deadline, read).await?.lines.len() as u64;
        }
        Ok(self.inner.append_logs(deadline, AppendLogs { appends: vec![append] }).await?[0])
    }

    async fn keep_lines(&self, append: LogAppend) -> Result<()> {
        let Some(job) = self.record(append.job).await? else { return Ok(()) };
        let mut shadow = self.shadow();
        for line in append.lines {
            let sequence = shadow.lines.len() as u64 + 1;
            let at = job.enqueued_at;
            shadow.lines.push(LogLine::new(sequence, job.id, job.attempt, job.worker, at, line));
        }
        Ok(())
    }

    pub(super) async fn read_badly(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        let mut page = self.inner.read_logs(deadline, request).await?;
        if self.has(Defect::CapsNoLog) {
            let shadow = self.shadow();
            let mine = |line: &&LogLine| match request.source {
                LogSource::Job(job) => line.job == job,
                LogSource::Worker(worker) => line.worker == Some(worker),
            };
            let lines = shadow.lines.iter().filter(mine).filter(|line| line.sequence > request.after);
            page = LogPage { lines: lines.take(request.limit).cloned().collect(), gap: false };
        }
        if self.has(Defect::ReusesLogSequences) {
            let mut last = (0, 0);
            for line in &mut page.lines {
                last = if line.attempt == last.0 { (last.0, last.1 + 1) } else { (line.attempt, 1) };
                line.sequence = last.1;
            }
        }
        Ok(page)
    }
}
