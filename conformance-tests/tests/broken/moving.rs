//! Defects of moving jobs to another store.

use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, JobId, Result};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn admit_badly(&self, deadline: Deadline, mut request: Admit) -> Result<Vec<Admitted>> {
        match self.defect {
            Defect::AdmitsWithoutLogs => request.jobs.iter_mut().for_each(|job| job.logs.clear()),
            Defect::AdmitsOverWhatIsThere => {
                let ids = request.jobs.iter().map(|admission| admission.job.id).collect();
                self.amend_inside(deadline, ids, Action::Delete).await?;
            }
            Defect::AdmitsWithoutKeys => {
                request.jobs.iter_mut().for_each(|admission| admission.job.options.unique = None);
            }
            _ => {}
        }
        self.inner.admit(deadline, request).await
    }

    /// What is done to jobs before they are amended as they should be.
    pub(super) async fn move_badly(&self, deadline: Deadline, request: &mut Amend) -> Result<()> {
        let Select::Ids(ids) = &request.select else { return Ok(()) };
        match (self.defect, &request.action) {
            (Defect::DeletesWhatWasSentRoundAgain, Action::DeleteEnded { .. }) => {
                request.action = Action::Delete;
            }
            (Defect::RequeuesWithdrawnJobs, Action::Requeue { .. }) if !request.preview => {
                self.amend_inside(deadline, ids.clone(), Action::Restore).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn amend_inside(&self, deadline: Deadline, ids: Vec<JobId>, action: Action) -> Result<()> {
        let request = Amend { select: Select::Ids(ids), action, preview: false };
        self.inner.amend(deadline, request).await.map(drop)
    }
}
