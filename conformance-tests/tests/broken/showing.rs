//! Defects of what operators see and do.

use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, JobId, JobRecord, Reason, Result, State};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn amend_badly(&self, deadline: Deadline, mut request: Amend) -> Result<Amended> {
        if self.has(Defect::PreviewsForReal) {
            request.preview = false;
        }
        let mut amended = self.inner.amend(deadline, request.clone()).await?;
        for (job, answer) in &mut amended.jobs {
            let refused = *answer == AmendAnswer::Refused(State::Running);
            if self.has(Defect::DeletesRunningJobs) && refused && request.action == Action::Delete {
                self.delete_anyhow(deadline, *job).await?;
                *answer = AmendAnswer::Applied;
            }
        }
        Ok(amended)
    }

    async fn delete_anyhow(&self, deadline: Deadline, job: JobId) -> Result<()> {
        if let Some(token) = self.present(job) {
            let verdict = Verdict::Fail { reason: Reason::Error };
            let settlement = Settlement { job, token, verdict, failure: None };
            self.inner.settle(deadline, Settle { settlements: vec![settlement] }).await?;
        }
        let request = Amend { select: Select::Ids(vec![job]), action: Action::Delete, preview: false };
        self.inner.amend(deadline, request).await.map(drop)
    }

    pub(super) async fn find_badly(
        &self,
        deadline: Deadline,
        request: Find,
    ) -> Result<Vec<Option<JobRecord>>> {
        let mut found = self.inner.find(deadline, request).await?;
        for job in found.iter_mut().flatten() {
            match self.defect {
                Defect::ForgetsTheFirstFailure => drop(job.history.drain(..job.history.len().min(1))),
                Defect::RequeuesWithOldAttempts if job.generation > 0 => job.attempt += 2,
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) async fn prune_badly(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        let mut pruned = self.inner.prune(deadline, request).await?;
        if self.has(Defect::PrunesTooEarly) {
            let ids = std::mem::take(&mut self.shadow().ended);
            let delete = Amend { select: Select::Ids(ids), action: Action::Delete, preview: false };
            let deleted = self.inner.amend(deadline, delete).await?.jobs;
            pruned.jobs +=
                deleted.iter().filter(|(_, answer)| *answer == AmendAnswer::Applied).count() as u64;
        }
        Ok(pruned)
    }
}
