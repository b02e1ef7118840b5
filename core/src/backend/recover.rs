use crate::id::{JobId, LeaseToken, WorkerId};
use crate::job::JobRecord;
use crate::name::{Kind, QueueName};
use crate::policy::RetryPolicy;

use super::settle::Settlement;

/// Asks for leases that ran out.
#[derive(Debug, Clone, Copy)]
pub struct Expired {
    /// At most this many.
    pub limit: usize,
}

/// A lease that ran out, with what a policy needs to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpiredLease {
    /// The job.
    pub job: JobId,
    /// The token of the lease; what makes the recovery fenced (C2).
    pub token: LeaseToken,
    /// Its queue.
    pub queue: QueueName,
    /// Its kind.
    pub kind: Kind,
    /// Who held it.
    pub worker: Option<WorkerId>,
    /// The attempt that was lost.
    pub attempt: u32,
    /// How many attempts it has in all.
    pub max_attempts: u32,
    /// How many attempts were lost before this one.
    pub crashes: u32,
    /// How many it may lose.
    pub crash_budget: u32,
    /// Its own retry policy.
    pub retry: Option<RetryPolicy>,
}

impl ExpiredLease {
    /// What a job's record tells of the lease with this token.
    pub fn new(job: &JobRecord, token: LeaseToken) -> Self {
        Self {
            job: job.id,
            token,
            queue: job.queue.clone(),
            kind: job.kind.clone(),
            worker: job.worker,
            attempt: job.attempt,
            max_attempts: job.options.max_attempts,
            crashes: job.crashes,
            crash_budget: job.options.crash_budget,
            retry: job.options.retry.clone(),
        }
    }
}

/// Asks for jobs to be taken back from leases that ran out.
#[derive(Debug, Clone, Default)]
pub struct Recover {
    /// What each becomes: [`Verdict::Retry`](super::Verdict::Retry) or
    /// [`Verdict::Fail`](super::Verdict::Fail).
    pub settlements: Vec<Settlement>,
}
