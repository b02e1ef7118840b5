use super::{Checked, at_most, batch, moment, once, options, payload, progress};
use crate::backend::{Admit, Arrival};
use crate::error::{Error, Result};
use crate::job::{Payload, State};
use crate::limits::{self, Limits, cut};

impl Checked for Admit {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        batch(self.jobs.len(), limits)?;
        once(self.jobs.iter().map(|arrival| (arrival.job.id, ())))?;
        batch(self.jobs.iter().map(|arrival| arrival.logs.len()).sum(), limits)?;
        let size = |payload: Option<&Payload>| payload.map_or(0, Payload::len);
        let bytes = self.jobs.iter().map(|Arrival { job, .. }| job.payload.len() + size(job.result.as_ref()));
        at_most("the batch", bytes.sum(), limits.batch_bytes, "bytes of payloads and results")?;
        self.jobs.iter_mut().try_for_each(|arrival| admitted(arrival, limits))
    }
}

/// What an enqueue, a settlement and an append would have been checked for.
fn admitted(Arrival { job, logs }: &mut Arrival, limits: &Limits) -> Result<()> {
    payload("the payload", &job.payload, limits)?;
    job.result.as_ref().map_or(Ok(()), |result| payload("the result", result, limits))?;
    options(&job.options, limits)?;
    moment("a due time", job.due)?;
    let is_whole = job.state.is_terminal() == job.finished_at.is_some() && job.lease_until.is_none();
    if !is_whole || job.state == State::Running {
        let why = "one that waits has not ended, one that has ended did so at some moment, and none runs";
        return Err(Error::invalid(format!(
            "the job {} is {} and cannot be admitted so; {why}",
            job.id, job.state
        )));
    }
    for at in [Some(job.enqueued_at), job.started_at, job.finished_at].into_iter().flatten() {
        moment("a moment", at)?;
    }
    if let Some(told) = &job.progress {
        progress(told, limits)?;
    }
    at_most("the history", job.history.len(), limits::HISTORY, "failures")?;
    for failure in &mut job.history {
        cut(&mut failure.message, limits.failure_bytes);
        cut(&mut failure.class, limits::KEY_BYTES);
    }
    job.expires_at = job.expiry();
    job.cancel_requested = false;
    logs.iter_mut().for_each(|line| cut(&mut line.message, limits.log_line_bytes));
    Ok(())
}
