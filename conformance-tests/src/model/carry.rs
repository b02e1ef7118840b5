//! The step that takes a job out of the store and brings it back (P8).

use leasehold_core::backend::{Action, Admit, Admitted, Amend, AmendAnswer, Arrival, LogSource, Select};
use leasehold_core::{JobId, State};

use super::play::{Play, latest};
use super::step::Nth;
use crate::bench::in_time;
use crate::breach::{Breach, Kept, must, must_eq};

impl Play {
    pub(super) async fn carry(&mut self, nth: Nth) -> Kept {
        let Some(id) = latest(&self.jobs, nth).copied() else { return Ok(()) };
        self.amend_as_told(id, Action::Withdraw).await?;
        let found = self.t.find_all(&[id]).await?.pop().flatten();
        let Some(mut job) = found.filter(|job| job.state.is_terminal()) else { return Ok(()) };
        let logs = self.t.read_log(LogSource::Job(id), 0, 1_000).await?.lines;
        let lines = self.reference.lines(id);
        let gone = self.amend_as_told(id, Action::DeleteEnded { by: self.reference.now }).await?;
        must_eq!(gone, AmendAnswer::Applied, "the removal of {job:?}");
        if job.is_withdrawn() {
            (job.state, job.reason, job.finished_at) =
                (State::waiting(job.due, self.reference.now), None, None);
        }
        let request = Admit { jobs: vec![Arrival { job: job.clone(), logs }] };
        let told = self.t.backend().admit(in_time(0), request).await?;
        let wanted = self.reference.admit(&job, lines);
        let fits = match (told.as_slice(), wanted) {
            ([Admitted::Created], None) => true,
            ([Admitted::Held(told)], Some(holder)) => *told == holder,
            _ => false,
        };
        must!(fits, "the admission of {job:?} was answered {told:?}; whoever holds its key is {wanted:?}");
        if wanted.is_none() { self.compare_log(id).await } else { Ok(()) }
    }

    async fn amend_as_told(&mut self, id: JobId, action: Action) -> Result<AmendAnswer, Breach> {
        let request = Amend { select: Select::Ids(vec![id]), action: action.clone(), preview: false };
        let told = self.t.backend().amend(in_time(0), request).await?.jobs;
        let wanted = self.reference.amend(id, &action, false);
        must_eq!(told, [(id, wanted)], "the answer to {action:?}");
        Ok(wanted)
    }
}
