use std::cmp::Reverse;

use leasehold_core::backend::{Claim, ExpiredLease, Renewal, Renewed};
use leasehold_core::{JobId, LeasedJob, State};

use super::{Job, Reference};

impl Reference {
    /// Gives jobs out (C1, C4, C6, C7, C9, C10, C11), or the same ones again (E2).
    pub(in crate::model) fn claim(&mut self, request: &Claim) -> Vec<LeasedJob> {
        if let Some((_, given)) = self.claims.get(&request.id) {
            return given.iter().filter_map(|id| self.still_held(*id, request)).collect();
        }
        let mut given = Vec::new();
        for id in self.due_in_order(request) {
            if given.len() < request.limit && self.has_room(id) {
                given.extend(self.lease(id, request));
            }
        }
        if !given.is_empty() {
            let ids = given.iter().map(|lease| lease.job.id).collect();
            self.claims.insert(request.id, (self.now, ids));
        }
        given
    }

    /// Whether a claim was given anything so long ago that it may be taken for another one.
    pub(in crate::model) fn is_forgotten(&self, claim: &Claim) -> bool {
        let memory = leasehold_core::limits::CLAIM_MEMORY;
        self.claims.get(&claim.id).is_some_and(|(at, _)| self.now.since(*at) >= memory)
    }

    fn still_held(&self, id: JobId, request: &Claim) -> Option<LeasedJob> {
        let (token, job) = (request.id.token(id), self.jobs.get(&id)?);
        let lease = job.record.options.lease.unwrap_or(request.lease);
        (job.token == Some(token)).then(|| LeasedJob::new(job.record.clone(), token, lease))
    }

    fn due_in_order(&self, request: &Claim) -> Vec<JobId> {
        let matches = |job: &&Job| {
            let record = &job.record;
            record.state.is_waiting()
                && record.due <= self.now
                && request.queues.contains(&record.queue)
                && self.queues.get(&record.queue).is_none_or(|queue| queue.settings.gives(request.rated))
                && request.kinds.takes(&record.kind)
                && request.tags.takes(&record.options.tags)
                && request.min_priority.is_none_or(|least| record.options.priority >= least)
        };
        let mut due: Vec<&Job> = self.jobs.values().filter(matches).collect();
        due.sort_by_key(|job| (Reverse(job.record.options.priority), job.record.due, job.record.id));
        due.into_iter().map(|job| job.record.id).collect()
    }

    fn has_room(&self, id: JobId) -> bool {
        let limit = self.jobs[&id].record.options.limit.as_ref();
        limit.is_none_or(|limit| self.running(&limit.key) < limit.max as usize)
    }

    fn lease(&mut self, id: JobId, request: &Claim) -> Option<LeasedJob> {
        let (now, token) = (self.now, request.id.token(id));
        let job = self.jobs.get_mut(&id)?;
        let lease = job.record.options.lease.unwrap_or(request.lease);
        job.token = Some(token);
        job.logged = 0;
        job.record.state = State::Running;
        job.record.reason = None;
        job.record.attempt += 1;
        job.record.worker = Some(request.worker);
        job.record.started_at = Some(now);
        job.record.lease_until = Some(now.plus(lease));
        Some(LeasedJob::new(job.record.clone(), token, lease))
    }

    /// Makes a lease longer, never shorter (C2, S5, S6).
    pub(in crate::model) fn renew(&mut self, renewal: &Renewal) -> Renewed {
        let until = self.now.plus(renewal.lease);
        let Some(job) = self.held(renewal.job, renewal.token) else { return Renewed::Lost };
        let until = job.record.lease_until.map_or(until, |before| before.max(until));
        job.record.lease_until = Some(until);
        if renewal.progress.is_some() {
            job.record.progress.clone_from(&renewal.progress);
        }
        Renewed::Held { until, cancel_requested: job.record.cancel_requested }
    }

    /// The leases whose ends are past, longest ago first; of one moment in the order of their jobs' ids.
    pub(in crate::model) fn expired(&self) -> Vec<ExpiredLease> {
        let over = |job: &&Job| job.record.lease_until.is_some_and(|until| until < self.now);
        let mut over: Vec<&Job> = self.jobs.values().filter(over).collect();
        over.sort_by_key(|job| (job.record.lease_until, job.record.id));
        let lost = |job: &Job| Some(ExpiredLease::new(&job.record, job.token?));
        over.into_iter().filter_map(lost).collect()
    }
}
