use leasehold_core::backend::NewFailure;
use leasehold_core::{Failure, JobRecord, Keep, LeaseToken, Reason, State, Timestamp};

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
        Self { job, queue, token: None, settled: None, logged: 0 }
    }

    /// The job as it is at `now`: a scheduled one becomes queued by the passing of time alone.
    pub(crate) fn seen(&mut self, now: Timestamp) -> &JobRecord {
        if self.job.state.is_waiting() {
            self.job.state = waiting_state(self.job.due, now);
        }
        &self.job
    }

    /// Whether it runs under this lease, which may have run out: until somebody takes the job back, nobody
    /// else holds it.
    pub(crate) fn is_held_by(&self, token: LeaseToken) -> bool {
        self.token == Some(token)
    }

    /// Makes it wait until `due`.
    pub(crate) fn wait(&mut self, due: Timestamp, reason: Option<Reason>, now: Timestamp) {
        self.job.state = waiting_state(due, now);
        self.job.due = due;
        self.job.reason = reason;
        self.drop_lease();
    }

    /// Makes it end, to be kept as long as its retention says.
    pub(crate) fn end(&mut self, state: State, reason: Option<Reason>, now: Timestamp) {
        let retention = &self.job.options.retention;
        let keep = match state {
            State::Succeeded => retention.succeeded,
            State::Failed => retention.failed,
            _ => retention.cancelled,
        };
        self.job.expires_at = match keep {
            Keep::For(span) => Some(now.plus(span)),
            Keep::Forever => None,
        };
        self.job.state = state;
        self.job.reason = reason;
        self.job.finished_at = Some(now);
        self.drop_lease();
    }

    /// Sends an ended job round again, as if it were new but for its history (clause S1).
    pub(crate) fn requeue(&mut self, due: Timestamp, now: Timestamp) {
        self.job.generation += 1;
        self.job.attempt = 0;
        self.job.crashes = 0;
        self.job.result = None;
        self.job.progress = None;
        self.job.finished_at = None;
        self.job.expires_at = None;
        self.wait(due, Some(Reason::Requeued), now);
    }

    /// Adds the failure of the present attempt to the history.
    pub(crate) fn remember(&mut self, failure: NewFailure, now: Timestamp) {
        self.job.remember(Failure {
            attempt: self.job.attempt,
            worker: self.job.worker,
            at: now,
            reason: failure.reason,
            class: failure.class,
            message: failure.message,
        });
    }

    fn drop_lease(&mut self) {
        self.token = None;
        self.job.lease_until = None;
        self.job.cancel_requested = false;
    }
}

fn waiting_state(due: Timestamp, now: Timestamp) -> State {
    if due > now { State::Scheduled } else { State::Queued }
}
