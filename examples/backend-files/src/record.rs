use std::cmp::Reverse;

use leasehold_core::{JobId, JobRecord, LeaseToken, State, Timestamp};
use serde::{Deserialize, Serialize};

use crate::schema::By;

/// A job as it is stored: what everybody may see, and what only the store knows.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) job: JobRecord,
    /// The lease it runs under; none unless it runs.
    pub(crate) token: Option<LeaseToken>,
    /// By what the latest settlement is recognised when it comes again, even after the job was claimed again: its
    /// token and verdict, and whether it was a recovery. A worker's retry and a recoverer's are two.
    pub(crate) settled: Option<(LeaseToken, String, bool)>,
    /// How many log lines were taken in under the present or latest lease.
    pub(crate) logged: u64,
    /// The ids of the newcomers that replaced it, the latest ones, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaced: Vec<JobId>,
}

impl Row {
    pub(crate) fn new(job: JobRecord) -> Self {
        Self { job, token: None, settled: None, logged: 0, replaced: Vec::new() }
    }

    /// The job as it is at `now`.
    pub(crate) fn seen(&self, now: Timestamp) -> JobRecord {
        let mut job = self.job.clone();
        job.look(now);
        job
    }

    /// The state by which it is counted: what waits becomes due by itself, and is counted as one.
    pub(crate) fn counted_as(&self) -> State {
        if self.job.state.is_waiting() { State::Queued } else { self.job.state }
    }

    pub(crate) fn found_by(&self) -> impl Iterator<Item = By> + use<> {
        let job = &self.job;
        let waits = job.state.is_waiting();
        let limit = job.options.limit.as_ref().filter(|_| job.state == State::Running);
        let found_by = [
            Some(By::Age(job.enqueued_at)),
            waits.then_some(By::Place(Reverse(job.options.priority), job.due)),
            waits.then(|| By::Due(job.queue.clone(), job.due)),
            job.lease_until.map(By::Lease),
            limit.map(|limit| By::Limit(limit.key.clone())),
            job.expires_at.map(By::Expiry),
        ];
        found_by.into_iter().flatten()
    }
}
