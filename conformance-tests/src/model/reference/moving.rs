use leasehold_core::{JobId, JobRecord};

use super::{Job, Line, Reference};

impl Reference {
    /// Takes in a job that is not there, unless another one holds the unique key that it holds (P8); answers who does.
    pub(in crate::model) fn admit(&mut self, record: &JobRecord, lines: Vec<Line>) -> Option<JobId> {
        let job = Job { lines, ..Job::new(record.clone()) };
        let unique = record.options.unique.as_ref();
        let key = unique.map(|unique| &unique.key).filter(|key| job.holds(key, self.now));
        let holder = key.and_then(|key| self.holder(key));
        if holder.is_none() {
            self.queue(&record.queue).enqueued += 1;
            self.jobs.insert(record.id, job);
        }
        holder
    }
}
