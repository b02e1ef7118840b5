use std::collections::BTreeMap;

use leasehold_core::backend::{Filter, Order, QueueCounts, QueueSettings};
use leasehold_core::{JobId, JobRecord, QueueName, State, Timestamp};

use super::Reference;

impl Reference {
    /// A job as it is now.
    pub(in crate::model) fn find(&self, id: JobId) -> Option<JobRecord> {
        self.jobs.get(&id).map(|job| job.seen(self.now))
    }

    /// The jobs that match, by when they were taken in and by their ids (F4).
    pub(in crate::model) fn list(&self, filter: &Filter, order: Order) -> Vec<JobRecord> {
        let all = self.jobs.values().map(|job| job.seen(self.now));
        let mut jobs: Vec<JobRecord> = all.filter(|job| filter.matches(job)).collect();
        jobs.sort_by_key(|job| (job.enqueued_at, job.id));
        if order == Order::NewestFirst {
            jobs.reverse();
        }
        jobs
    }

    /// The counts of a queue (S2).
    pub(in crate::model) fn counts(&self, name: &QueueName) -> QueueCounts {
        let jobs: Vec<JobRecord> =
            self.jobs.values().map(|job| job.seen(self.now)).filter(|job| job.queue == *name).collect();
        let mut states: BTreeMap<State, u64> = BTreeMap::new();
        for job in &jobs {
            *states.entry(job.state).or_default() += 1;
        }
        let due = jobs.iter().filter(|job| job.state == State::Queued).map(|job| job.due);
        let mut counts = QueueCounts::empty(name.clone());
        counts.states = states;
        counts.oldest_due = due.min();
        if let Some(queue) = self.queues.get(name) {
            (counts.enqueued, counts.deleted) = (queue.enqueued, queue.deleted);
        }
        counts
    }

    /// The settings of a queue.
    pub(in crate::model) fn settings(&self, name: &QueueName) -> QueueSettings {
        self.queues.get(name).map(|queue| queue.settings.clone()).unwrap_or_default()
    }

    /// Until when the leases run that are held.
    pub(in crate::model) fn lease_end(&self, id: JobId) -> Option<Timestamp> {
        self.jobs.get(&id).and_then(|job| job.record.lease_until)
    }
}
