use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::backend::{Answer, Claim, Enqueue, Enqueued, Settle, Settlement, Verdict};
use leasehold_core::{Backend, Deadline, JobId, LeaseToken, NewJob, QueueName, WorkerId};

use crate::Trouble;
use crate::counted::Counted;

/// Longer than any call of a run takes, so that none is cut off.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A job that was claimed.
pub(crate) type Held = (JobId, LeaseToken);

/// What a workload works on: a backend, or what it is compared with.
#[async_trait]
pub(crate) trait Target: Send + Sync {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble>;
    /// Claims up to so many jobs.
    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble>;
    /// Settles jobs as succeeded.
    async fn settle(&self, held: Vec<Held>) -> Result<(), Trouble>;
    /// Round trips so far, where they are counted.
    async fn trips(&self) -> Result<Option<u64>, Trouble>;
}

#[async_trait]
impl Target for Counted {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        let answers = Backend::enqueue(self, Deadline::after(PATIENCE), Enqueue { jobs }).await?;
        expect("enqueued", answers.iter().all(Enqueued::is_created))
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble> {
        let lease = Duration::from_mins(10);
        let claim = Claim::new(WorkerId::generate(), [QueueName::default()], limit, lease);
        let claimed = Backend::claim(self, Deadline::after(PATIENCE), claim).await?;
        Ok(claimed.jobs.iter().map(|leased| (leased.job.id, leased.token)).collect())
    }

    async fn settle(&self, held: Vec<Held>) -> Result<(), Trouble> {
        let succeed = |(job, token)| {
            let verdict = Verdict::Succeed { result: None };
            Settlement { job, token, verdict, failure: None }
        };
        let settlements = held.into_iter().map(succeed).collect();
        let answers = Backend::settle(self, Deadline::after(PATIENCE), Settle { settlements }).await?;
        expect("settled", answers.iter().all(|answer| *answer == Answer::Applied))
    }

    async fn trips(&self) -> Result<Option<u64>, Trouble> {
        Counted::trips(self).await
    }
}

/// A number counts only if the work was done.
pub(crate) fn expect(what: &str, holds: bool) -> Result<(), Trouble> {
    if holds {
        Ok(())
    } else {
        Err(format!("not every job was {what}; the numbers would mean nothing").into())
    }
}

/// `count` jobs of an ordinary size, with a payload of about 100 bytes, in batches.
pub(crate) fn batches(count: usize, batch: usize) -> Result<Vec<Vec<NewJob>>, Trouble> {
    let text = "x".repeat(70);
    let job = |n| NewJob::dynamic("bench", &(n, "ann@example.org", &text));
    let starts = (0..count).step_by(batch);
    Ok(starts.map(|n| (n..count.min(n + batch)).map(job).collect()).collect::<Result<_, _>>()?)
}
