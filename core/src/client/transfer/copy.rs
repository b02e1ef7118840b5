use super::carry::{Fate, as_it_was};
use super::{Account, Trip};
use crate::error::Result;
use crate::job::{JobRecord, State};
use crate::time::Timestamp;

impl Trip {
    /// Copies what there is, the oldest first.
    pub(super) async fn copy_jobs(&mut self, told: &mut (dyn FnMut(&Account) + Send)) -> Result<()> {
        let (filter, mut after) = (self.order.filter.clone(), None);
        while let Some(jobs) = self.next_page(&filter, &mut after).await? {
            if self.is_stopped() {
                return Ok(());
            }
            for (job, fate) in self.carry(jobs.into_iter().map(at_rest).collect()).await? {
                self.account.met += 1;
                match fate {
                    Fate::Taken => self.account.taken += 1,
                    Fate::There => self.account.there += 1,
                    Fate::Held(holder) => self.account.hold(job.id, holder),
                }
            }
            told(&self.account);
        }
        Ok(())
    }
}

/// A job as a copy of it is taken in: it does not run beside the other.
fn at_rest(job: JobRecord) -> JobRecord {
    let mut job = as_it_was(job, None);
    if !job.state.is_terminal() {
        (job.state, job.due) = (State::Scheduled, Timestamp::MAX);
        (job.lease_until, job.cancel_requested) = (None, false);
    }
    job
}
