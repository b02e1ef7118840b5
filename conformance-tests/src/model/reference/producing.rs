use leasehold_core::backend::Enqueue;
use leasehold_core::{JobId, JobRecord, NewJob, OnConflict, Reason, UniqueKey, limits};

use super::{Job, Reference};

/// What became of an enqueued job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Entry {
    Created,
    Existing,
    Held,
    Replaced,
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
        if let Some(job) = self.jobs.values().find(|job| job.replaced.contains(&new.id)) {
            return (job.record.id, Entry::Replaced);
        }
        let key: Option<&UniqueKey> = new.options.unique.as_ref().map(|unique| &unique.key);
        if let Some(holder) = key.and_then(|key| self.holder(key)) {
            let entry = if self.replace(holder, new) { Entry::Replaced } else { Entry::Held };
            return (holder, entry);
        }
        let (now, new) = (self.now, new.clone());
        self.queue(&new.queue).enqueued += 1;
        let due = new.due.by(now);
        let record = JobRecord::new(new.id, new.queue, new.kind, new.payload, new.options, due, now);
        self.jobs.insert(new.id, Job::new(record));
        (new.id, Entry::Created)
    }

    /// Gives the holder of a key what a newcomer brings, if that wants it and the holder waits and is of its kind (P4).
    fn replace(&mut self, holder: JobId, new: &NewJob) -> bool {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&holder) else { return false };
        let rule = new.options.unique.as_ref().map_or(OnConflict::Keep, |unique| unique.on_conflict);
        if rule == OnConflict::Keep || !job.record.state.is_waiting() || job.record.kind != new.kind {
            return false;
        }
        let mut due = new.due.by(now);
        if let OnConflict::Debounce { at_most } = rule {
            due = due.min(job.record.enqueued_at.plus(at_most));
        }
        job.wait(due, Reason::Replaced);
        job.record.payload = new.payload.clone();
        job.record.options.priority = new.options.priority;
        job.record.progress = None;
        job.replaced.push(new.id);
        if job.replaced.len() > limits::REPLACEMENTS {
            job.replaced.remove(0);
        }
        true
    }
}
