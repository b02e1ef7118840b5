use std::time::Duration;

use super::store::Store;
use super::wake::{Wake, jittered};
use crate::backend::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::id::JobId;
use crate::job::JobRecord;
use crate::time::Deadline;

/// How often a job is looked at where no event tells that it ended.
const POLL: Duration = Duration::from_millis(500);

impl Store {
    /// Waits until a job has ended and returns it, or as it is when `timeout` is over.
    ///
    /// Events make this quick, polling makes it sure.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job.
    pub async fn wait(&self, job: JobId, timeout: Duration) -> Result<JobRecord> {
        let until = Deadline::after(timeout);
        let mut wake = Wake::new(self.backend().clone(), None);
        loop {
            wake.listen().await;
            let missing = || Error::new(ErrorKind::NotFound, format!("there is no job {job}"));
            let record = self.find(job).await?.ok_or_else(missing)?;
            let left = until.left();
            if record.state.is_terminal() || left.is_zero() {
                return Ok(record);
            }
            let ended = |event: &Event| match event {
                Event::Changed { job: of, state, .. } => *of == job && state.is_terminal(),
                event => *event == Event::Changes,
            };
            wake.wait(jittered(POLL).min(left), ended).await;
        }
    }
}
