use leasehold_core::{JobId, JobRecord, LeaseToken, Timestamp};

/// A job as it is stored: what everybody may see, and what only the store knows.
pub(crate) struct Row {
    /// What everybody may see. `state` is `Queued` or `Scheduled` as of the last look; see [`Row::seen`].
    pub(crate) job: JobRecord,
    /// The index of its queue in the tables.
    pub(crate) queue: usize,
    /// The lease it runs under; none unless it runs.
    pub(crate) token: Option<LeaseToken>,
    /// The latest settlement, so that its repetition is recognised even after the job was claimed again.
    pub(crate) settled: Option<Settled>,
    /// How many log lines were taken in under the present or latest lease.
    pub(crate) logged: u64,
    /// The ids of the newcomers that replaced it, the latest ones, the latest last.
    pub(crate) replaced: Vec<JobId>,
}

/// What a settlement is recognised by when it comes again. A worker's retry and a recoverer's are two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) token: LeaseToken,
    pub(crate) verdict: &'static str,
    pub(crate) recovered: bool,
}

impl Row {
    pub(crate) fn new(job: JobRecord, queue: usize) -> Self {
        Self { job, queue, token: None, settled: None, logged: 0, replaced: Vec::new() }
    }

    /// The job as it is at `now`.
    pub(crate) fn seen(&mut self, now: Timestamp) -> &JobRecord {
        self.job.look(now);
        &self.job
    }

    /// Whether it runs under this lease, which may have run out: until somebody takes the job back, nobody
    /// else holds it.
    pub(crate) fn is_held_by(&self, token: LeaseToken) -> bool {
        self.token == Some(token)
    }
}
