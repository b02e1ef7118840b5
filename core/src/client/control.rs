use super::store::Store;
use crate::backend::{Action, Amend, AmendAnswer, Cursor, Filter, Select, StopWorkers};
use crate::error::Result;
use crate::id::JobId;
use crate::job::Due;
use crate::time::Timestamp;

/// How many jobs one call of a bulk action touches at most.
const BATCH: usize = 500;

impl Store {
    /// Cancels a job: at once if it waits; if it runs, its worker learns it at its next renewal (clause S5).
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn cancel(&self, job: JobId) -> Result<AmendAnswer> {
        self.amend(job, Action::Cancel).await
    }

    /// Sends an ended job round again, with its attempts counted anew (clause S1).
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn requeue(&self, job: JobId) -> Result<AmendAnswer> {
        self.amend(job, Action::Requeue { due: Due::Now }).await
    }

    /// Removes a job, unless it runs.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn delete(&self, job: JobId) -> Result<AmendAnswer> {
        self.amend(job, Action::Delete).await
    }

    /// Makes a [parked](crate::NewJob::parked) job due now; one that is not parked is left as it is (clause P7).
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn unpark(&self, job: JobId) -> Result<AmendAnswer> {
        self.amend(job, Action::Unpark { due: Due::Now }).await
    }

    /// Changes one job.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn amend(&self, job: JobId, action: Action) -> Result<AmendAnswer> {
        let request = Amend { select: Select::Ids(vec![job]), action, preview: false };
        let amended = self.backend().amend(self.deadline(), request).await?;
        Ok(amended.jobs.first().map_or(AmendAnswer::NotFound, |(_, answer)| *answer))
    }

    /// Begins to change every job that matches and exists now, a bounded batch at a time.
    ///
    /// ```no_run
    /// # async fn example(store: leasehold_core::Store) -> leasehold_core::Result<()> {
    /// use leasehold_core::backend::{Action, Filter};
    /// let mut bulk = store.amend_all(Filter::default(), Action::Cancel).await?;
    /// while let Some(batch) = bulk.next().await? {
    ///     println!("{} more", batch.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn amend_all(&self, filter: Filter, action: Action) -> Result<Bulk> {
        let as_of = self.now().await?;
        Ok(Bulk { store: self.clone(), filter, action, as_of, preview: false, from: Some(None) })
    }

    /// Asks workers to stop; they learn it at their next check-in. Answers how many were asked.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn stop_workers(&self, which: StopWorkers) -> Result<u64> {
        self.backend().stop_workers(self.deadline(), which).await
    }
}

/// A change of many jobs under way. Dropping it stops it between two batches.
#[derive(Debug)]
pub struct Bulk {
    store: Store,
    filter: Filter,
    action: Action,
    as_of: Timestamp,
    preview: bool,
    /// Where the next batch begins; none when all are done.
    from: Option<Option<Cursor>>,
}

impl Bulk {
    /// Only tells what would be done.
    #[must_use]
    pub fn preview(mut self) -> Self {
        self.preview = true;
        self
    }

    /// Changes the next batch, and tells what became of each of its jobs; none when all are done.
    ///
    /// # Errors
    /// Those named at [`Store`]; the same batch may then be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<(JobId, AmendAnswer)>>> {
        let Some(after) = self.from.clone() else { return Ok(None) };
        let limit = BATCH.min(self.store.limits().page);
        let select = Select::Matching { filter: self.filter.clone(), as_of: self.as_of, after, limit };
        let request = Amend { select, action: self.action.clone(), preview: self.preview };
        let amended = self.store.backend().amend(self.store.deadline(), request).await?;
        self.from = amended.next.map(Some);
        Ok(Some(amended.jobs))
    }
}
