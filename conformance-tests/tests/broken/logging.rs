//! Defects of capped logs.

use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, Error, ErrorKind, JobId, Result};

use super::{Broken, Defect};

impl Broken {
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
        match self.defect {
            Defect::TakesLinesTwice => append.position += self.lines_of(deadline, append.job).await?,
            Defect::AppendsAfterReading => {
                let next = append.position + append.lines.len() as u64;
                let before = self.shadow().logged.get(&append.token).copied().unwrap_or(0);
                tokio::task::yield_now().await;
                if append.position >= before {
                    append.position = self.lines_of(deadline, append.job).await?;
                }
                self.shadow().logged.insert(append.token, next.max(before));
            }
            Defect::ForgetsLevels => append.lines.iter_mut().for_each(|line| line.level = Level::Info),
            Defect::FailsAppendsAtTheCap if self.lines_of(deadline, append.job).await? >= 1_000 => {
                return Err(Error::new(ErrorKind::Full, "the log has reached its cap"));
            }
            _ => {}
        }
        Ok(self.inner.append_logs(deadline, AppendLogs { appends: vec![append] }).await?[0])
    }

    async fn lines_of(&self, deadline: Deadline, job: JobId) -> Result<u64> {
        let read = ReadLogs { source: LogSource::Job(job), after: 0, limit: 1_000 };
        Ok(self.inner.read_logs(deadline, read).await?.lines.len() as u64)
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

    pub(super) async fn read_badly(&self, deadline: Deadline, mut request: ReadLogs) -> Result<LogPage> {
        if self.has(Defect::ReadsTheLastLineAgain) {
            request.after = request.after.saturating_sub(1);
        }
        let mut page = self.inner.read_logs(deadline, request).await?;
        match self.defect {
            Defect::HidesTheGap => page.gap = false,
            Defect::ReturnsTheLatestLineFirst => page.lines.reverse(),
            Defect::CapsNoLog => page = self.all_lines(request),
            Defect::ReusesLogSequences => {
                let mut last = (0, 0);
                for line in &mut page.lines {
                    last = if line.attempt == last.0 { (last.0, last.1 + 1) } else { (line.attempt, 1) };
                    line.sequence = last.1;
                }
            }
            _ => {}
        }
        Ok(page)
    }

    fn all_lines(&self, request: ReadLogs) -> LogPage {
        let mine = |line: &&LogLine| match request.source {
            LogSource::Job(job) => line.job == job,
            LogSource::Worker(worker) => line.worker == Some(worker),
        };
        let shadow = self.shadow();
        let lines = shadow.lines.iter().filter(mine).filter(|line| line.sequence > request.after);
        LogPage { lines: lines.take(request.limit).cloned().collect(), gap: false }
    }
}
