//! The verbs of somebody who looks at the store or runs it.

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Capabilities, Counts, Cursor, Filter, Find, List, Order, Page, Pause,
    QueueCounts, QueueSettings, Select, SetQueue,
};
use leasehold_core::{JobId, JobRecord, QueueName, State};

use super::{Bench, in_time};
use crate::breach::{Done, Trouble};

impl Bench {
    /// What the store says that it can do.
    pub(crate) async fn capabilities(&self) -> Done<Capabilities> {
        Ok(self.backend().describe(in_time(0)).await?.capabilities)
    }

    /// Shows jobs by id.
    pub(crate) async fn find_all(&self, ids: &[JobId]) -> Done<Vec<Option<JobRecord>>> {
        let found = self.backend().find(in_time(ids.len()), Find { ids: ids.to_vec() }).await?;
        if found.len() == ids.len() {
            return Ok(found);
        }
        Err(Trouble::Unmet(format!("{} ids were asked for and {} answers came", ids.len(), found.len())))
    }

    /// Shows a job, which has to be there.
    pub(crate) async fn find(&self, id: JobId) -> Done<JobRecord> {
        let found = self.find_all(&[id]).await?.pop().flatten();
        found.ok_or_else(|| Trouble::Unmet(format!("job {id} is not there")))
    }

    /// The state of a job, which has to be there.
    pub(crate) async fn state(&self, id: JobId) -> Done<State> {
        Ok(self.find(id).await?.state)
    }

    /// A page of a list.
    pub(crate) async fn page(
        &self,
        filter: Filter,
        order: Order,
        after: Option<Cursor>,
        limit: usize,
    ) -> Done<Page> {
        Ok(self.backend().list(in_time(limit), List { filter, order, after, limit }).await?)
    }

    /// Every job that matches, page by page.
    pub(crate) async fn list(&self, filter: &Filter, order: Order, limit: usize) -> Done<Vec<JobRecord>> {
        let (mut jobs, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(filter.clone(), order, after, limit).await?;
            if page.jobs.len() > limit {
                return Err(Trouble::Unmet(format!("a page of {limit} had {} jobs", page.jobs.len())));
            }
            jobs.extend(page.jobs);
            after = page.next;
            if after.is_none() {
                return Ok(jobs);
            }
        }
    }

    /// The counts of this queue, or of none if it is not known.
    pub(crate) async fn counts_of(&self, queue: &QueueName) -> Done<QueueCounts> {
        Ok(self.counts_of_all(std::slice::from_ref(queue)).await?.remove(0))
    }

    /// The counts of these queues, in order; of none where one is not known.
    pub(crate) async fn counts_of_all(&self, queues: &[QueueName]) -> Done<Vec<QueueCounts>> {
        let request = Counts { queues: Some(queues.to_vec()) };
        let counts = self.backend().counts(in_time(0), request).await?;
        let of = |queue: &QueueName| counts.iter().find(|counts| counts.queue == *queue).cloned();
        Ok(queues
            .iter()
            .map(|queue| of(queue).unwrap_or_else(|| QueueCounts::empty(queue.clone())))
            .collect())
    }

    /// The counts of the queue `default`.
    pub(crate) async fn counts(&self) -> Done<QueueCounts> {
        self.counts_of(&QueueName::default()).await
    }

    /// The counts of every queue.
    pub(crate) async fn all_counts(&self) -> Done<Vec<QueueCounts>> {
        Ok(self.backend().counts(in_time(0), Counts::default()).await?)
    }

    /// Amends one job.
    pub(crate) async fn amend(&self, id: JobId, action: Action) -> Done<AmendAnswer> {
        let answers = self.amend_all(&[id], action).await?;
        Ok(answers[0])
    }

    /// Amends jobs by id in one call.
    pub(crate) async fn amend_all(&self, ids: &[JobId], action: Action) -> Done<Vec<AmendAnswer>> {
        let request = Amend { select: Select::Ids(ids.to_vec()), action, preview: false };
        let amended = self.backend().amend(in_time(ids.len()), request).await?;
        let answered: Vec<JobId> = amended.jobs.iter().map(|(id, _)| *id).collect();
        if answered != ids {
            return Err(Trouble::Unmet(format!("{ids:?} were to be amended, {answered:?} were answered")));
        }
        Ok(amended.jobs.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Pauses a queue, or lets it go on.
    pub(crate) async fn pause(&self, queue: &QueueName, paused: bool) -> Done {
        let pause = paused.then(|| Pause { by: "the case".into(), reason: "to see it stop".into() });
        let request =
            SetQueue { queue: queue.clone(), settings: QueueSettings { pause, ..QueueSettings::default() } };
        Ok(self.backend().set_queue(in_time(0), request).await?)
    }
}
