use leasehold_core::backend::Enqueue;
use leasehold_core::{JobId, JobRecord, NewJob, UniqueKey};

use super::{Job, Reference};

/// What became of an enqueued job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Entry {
    Created,
    Existing,
    Held,
}

impl Reference {
    /// Takes jobs in, one after the other (P2, P3, P4).
    pub(in crate::model) fn enqueue(&mut self, request: &Enqueue) -> Vec<(JobId, Entry)> {
        request.jobs.iter().map(|job| self.enqueue_one(job)).collect()
    }

    fn enqueue_one(&mut self, new: &NewJob) -> (JobId, Entry) {
        if self.jobs.contains_key(&new.id) {
            return (new.id, Entry::Existing);
        }
        let key: Option<&UniqueKey> = new.options.unique.as_ref().map(|unique| &unique.key);
        if let Some(holder) = key.and_then(|key| self.holder(key)) {
            return (holder, Entry::Held);
        }
        let (now, new) = (self.now, new.clone());
        self.queue(&new.queue).enqueued += 1;
        let due = new.due.by(now);
        let record = JobRecord::new(new.id, new.queue, new.kind, new.payload, new.options, due, now);
        self.jobs.insert(new.id, Job::new(record));
        (new.id, Entry::Created)
    }
}
