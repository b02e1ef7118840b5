//! The verbs of somebody who holds jobs, or takes them back.

use std::time::Duration;

use leasehold_core::backend::{
    Answer, AppendLogs, Expired, ExpiredLease, Level, LogAppend, LogPage, LogSource, NewFailure, NewLine,
    ReadLogs, Recover, Renew, Renewal, Renewed, Settle, Settlement, Verdict,
};
use leasehold_core::{JobId, LeaseToken, LeasedJob};

use super::{Bench, in_time};
use crate::breach::{Done, Trouble};

/// The settlement of this lease with this verdict and no failure.
pub(crate) fn settlement(lease: &LeasedJob, verdict: Verdict) -> Settlement {
    Settlement { job: lease.job.id, token: lease.token, verdict, failure: None }
}

/// What a lease is held by.
pub(crate) fn token_of(lease: &LeasedJob) -> (JobId, LeaseToken) {
    (lease.job.id, lease.token)
}

/// Log lines of the level `info`.
pub(crate) fn lines<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Vec<NewLine> {
    texts.into_iter().map(|text| NewLine { level: Level::Info, message: text.into() }).collect()
}

impl Bench {
    /// Settles in one call.
    pub(crate) async fn settle_all(&self, settlements: Vec<Settlement>) -> Done<Vec<Answer>> {
        let asked = settlements.len();
        let answers = self.backend().settle(in_time(asked), Settle { settlements }).await?;
        one_each(asked, answers)
    }

    /// Settles one lease.
    pub(crate) async fn settle(&self, lease: &LeasedJob, verdict: Verdict) -> Done<Answer> {
        self.settle_this(settlement(lease, verdict)).await
    }

    /// Settles one lease with a failure for the history.
    pub(crate) async fn settle_failing(
        &self,
        lease: &LeasedJob,
        verdict: Verdict,
        failure: NewFailure,
    ) -> Done<Answer> {
        self.settle_this(Settlement { failure: Some(failure), ..settlement(lease, verdict) }).await
    }

    /// Settles as told.
    pub(crate) async fn settle_this(&self, settlement: Settlement) -> Done<Answer> {
        Ok(self.settle_all(vec![settlement]).await?[0])
    }

    /// Settles one lease, which has to be held.
    pub(crate) async fn finish(&self, lease: &LeasedJob, verdict: Verdict) -> Done {
        let name = verdict.name();
        match self.settle(lease, verdict).await? {
            Answer::Applied => Ok(()),
            other => {
                Err(Trouble::Unmet(format!("its holder wanted to {name} job {} : {other}", lease.job.id)))
            }
        }
    }

    /// Renews in one call.
    pub(crate) async fn renew_all(&self, renewals: Vec<Renewal>) -> Done<Vec<Renewed>> {
        let asked = renewals.len();
        let answers = self.backend().renew(in_time(asked), Renew { renewals }).await?;
        one_each(asked, answers)
    }

    /// Renews one lease.
    pub(crate) async fn renew(&self, lease: &LeasedJob, span: Duration) -> Done<Renewed> {
        let (job, token) = token_of(lease);
        Ok(self.renew_all(vec![Renewal { job, token, lease: span, progress: None }]).await?[0])
    }

    /// The leases that ran out.
    pub(crate) async fn expired(&self, limit: usize) -> Done<Vec<ExpiredLease>> {
        Ok(self.backend().expired(in_time(limit), Expired { limit }).await?)
    }

    /// Recovers in one call.
    pub(crate) async fn recover_all(&self, settlements: Vec<Settlement>) -> Done<Vec<Answer>> {
        let asked = settlements.len();
        let answers = self.backend().recover(in_time(asked), Recover { settlements }).await?;
        one_each(asked, answers)
    }

    /// Recovers one lease.
    pub(crate) async fn recover(&self, (job, token): (JobId, LeaseToken), verdict: Verdict) -> Done<Answer> {
        let settlement = Settlement { job, token, verdict, failure: None };
        Ok(self.recover_all(vec![settlement]).await?[0])
    }

    /// Lets this lease run out and recovers it, which has to work.
    pub(crate) async fn lose(&self, lease: &LeasedJob, verdict: Verdict) -> Done {
        self.let_run_out(lease).await?;
        match self.recover(token_of(lease), verdict).await? {
            Answer::Applied => Ok(()),
            other => Err(Trouble::Unmet(format!("a lease that had run out was not recovered: {other}"))),
        }
    }

    /// Moves the clock to just after the end of this lease.
    pub(crate) async fn let_run_out(&self, lease: &LeasedJob) -> Done {
        let until = self.find(lease.job.id).await?.lease_until;
        let until = until.ok_or_else(|| Trouble::Unmet(format!("job {} has no lease", lease.job.id)))?;
        let left = until.since(self.hour());
        self.advance(left + Duration::from_millis(1));
        Ok(())
    }

    /// Adds lines to a job's log.
    pub(crate) async fn log(&self, lease: &LeasedJob, position: u64, lines: Vec<NewLine>) -> Done<Answer> {
        let (job, token) = token_of(lease);
        self.log_as(LogAppend { job, token, position, lines }).await
    }

    /// Adds lines as told.
    pub(crate) async fn log_as(&self, append: LogAppend) -> Done<Answer> {
        Ok(self.log_all(vec![append]).await?[0])
    }

    /// Adds lines to several logs in one call.
    pub(crate) async fn log_all(&self, appends: Vec<LogAppend>) -> Done<Vec<Answer>> {
        let asked = appends.len();
        one_each(asked, self.backend().append_logs(in_time(asked), AppendLogs { appends }).await?)
    }

    /// Reads a log after a sequence.
    pub(crate) async fn read_log(&self, source: LogSource, after: u64, limit: usize) -> Done<LogPage> {
        Ok(self.backend().read_logs(in_time(limit), ReadLogs { source, after, limit }).await?)
    }

    /// What all lines of a job's log say.
    pub(crate) async fn said(&self, job: JobId) -> Done<Vec<String>> {
        let page = self.read_log(LogSource::Job(job), 0, 1_000).await?;
        Ok(page.lines.into_iter().map(|line| line.message).collect())
    }
}

fn one_each<T>(asked: usize, answers: Vec<T>) -> Done<Vec<T>> {
    if answers.len() == asked {
        return Ok(answers);
    }
    Err(Trouble::Unmet(format!("{asked} items were asked and {} were answered", answers.len())))
}
