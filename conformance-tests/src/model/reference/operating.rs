use leasehold_core::backend::{
    Action, AmendAnswer, CheckIn, CheckedIn, DeleteRegister, Prune, Pruned, PutRegister, RegisterPage,
    Registers, SetQueue, StopWorkers, WorkerRecord,
};
use leasehold_core::{JobId, Reason, State, UniqueScope};

use super::{Reference, Worker};

impl Reference {
    /// Changes a job, or only tells what that would do (S1, S5).
    pub(in crate::model) fn amend(&mut self, id: JobId, action: &Action, preview: bool) -> AmendAnswer {
        let answer = self.what_it_would_do(id, action);
        if !preview {
            match answer {
                AmendAnswer::Applied => self.apply(id, action),
                AmendAnswer::Requested => self.ask_to_end(id),
                _ => {}
            }
        }
        answer
    }

    fn what_it_would_do(&self, id: JobId, action: &Action) -> AmendAnswer {
        use AmendAnswer::{AlreadyApplied, Applied, Held, NotFound, Refused, Requested};
        let Some(job) = self.jobs.get(&id) else { return NotFound };
        let record = job.seen(self.now);
        let state = record.state;
        let unless_already = |already: bool| if already { AlreadyApplied } else { Applied };
        let withdrawn = state == State::Cancelled && record.reason == Some(Reason::Moved);
        match action {
            Action::Withdraw if withdrawn => AlreadyApplied,
            Action::Withdraw if state.is_waiting() => Applied,
            Action::Restore if state.is_waiting() => AlreadyApplied,
            Action::Restore if withdrawn => {
                let lasting = |scope| !matches!(scope, UniqueScope::For(_));
                let unique = record.options.unique.filter(|unique| {
                    lasting(unique.scope)
                        && (unique.scope == UniqueScope::UntilFinished
                            || (record.started_at.is_none() && record.generation == 0))
                });
                unique.and_then(|unique| self.holder(&unique.key)).map_or(Applied, Held)
            }
            Action::Withdraw | Action::Restore => Refused(state),
            Action::DeleteEnded { by } => match record.finished_at {
                Some(at) if state.is_terminal() && at <= *by => Applied,
                _ => Refused(state),
            },
            Action::Delete if withdrawn => Applied,
            _ if withdrawn => Refused(state),
            Action::Cancel if state == State::Running => Requested,
            Action::Cancel if state == State::Cancelled => AlreadyApplied,
            Action::Cancel if state.is_terminal() => Refused(state),
            Action::Cancel => Applied,
            Action::Requeue { .. } if !state.is_terminal() => Refused(state),
            Action::Requeue { .. } => {
                let unique =
                    record.options.unique.filter(|unique| unique.scope == UniqueScope::UntilFinished);
                unique.and_then(|unique| self.holder(&unique.key)).map_or(Applied, Held)
            }
            Action::Move { queue } if record.queue == *queue => AlreadyApplied,
            Action::Delete | Action::Move { .. } if state == State::Running => Refused(state),
            Action::Delete | Action::Move { .. } => Applied,
            Action::Reprioritise { priority } => unless_already(record.options.priority == *priority),
            Action::Postpone { .. } if !state.is_waiting() => Refused(state),
            Action::Postpone { due } => unless_already(record.due == due.by(self.now)),
            Action::Unpark { .. } => unless_already(!record.is_parked()),
            Action::CancelParked if state == State::Cancelled => AlreadyApplied,
            Action::CancelParked if record.is_parked() => Applied,
            Action::CancelParked => Refused(state),
        }
    }

    fn apply(&mut self, id: JobId, action: &Action) {
        let now = self.now;
        if action.deletes() {
            return self.remove(id);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match action {
            Action::Cancel => job.end(State::Cancelled, Some(Reason::Cancelled), now),
            Action::Requeue { due } => {
                let record = &mut job.record;
                record.generation += 1;
                (record.attempt, record.crashes) = (0, 0);
                (record.result, record.progress) = (None, None);
                (record.finished_at, record.expires_at) = (None, None);
                job.wait(due.by(now), Reason::Requeued);
            }
            Action::Move { queue } => {
                let from = std::mem::replace(&mut job.record.queue, queue.clone());
                self.queue(&from).deleted += 1;
                self.queue(queue).enqueued += 1;
            }
            Action::Reprioritise { priority } => job.record.options.priority = *priority,
            Action::Postpone { due } => job.wait(due.by(now), Reason::Postponed),
            Action::Unpark { due } => job.wait(due.by(now), None),
            Action::CancelParked => job.end(State::Cancelled, Some(Reason::Dependency), now),
            Action::Withdraw => {
                job.end(State::Cancelled, Some(Reason::Moved), now);
                job.record.expires_at = None;
            }
            Action::Restore => {
                (job.record.finished_at, job.record.expires_at) = (None, None);
                job.wait(job.record.due, None);
            }
            Action::Delete | Action::DeleteEnded { .. } => {}
        }
    }

    fn ask_to_end(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.record.cancel_requested = true;
        }
    }

    fn remove(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.queue(&job.record.queue).deleted += 1;
        }
    }

    /// Pauses a queue or lets it go on (C10).
    pub(in crate::model) fn set_queue(&mut self, request: &SetQueue) {
        self.queue(&request.queue).settings = request.settings.clone();
    }

    /// Removes what was kept long enough (F5, F6).
    pub(in crate::model) fn prune(&mut self, request: &Prune) -> Pruned {
        let now = self.now;
        let over = self.jobs.values().filter(|job| job.record.expires_at.is_some_and(|at| at < now));
        let over: Vec<JobId> = over.map(|job| job.record.id).collect();
        over.iter().for_each(|id| self.remove(*id));
        let before = self.workers.len();
        self.workers.retain(|_, worker| worker.record.seen_at.plus(request.workers_after) >= now);
        let workers = (before - self.workers.len()) as u64;
        let before = self.registers.len();
        self.registers.retain(|_, register| register.expires.is_none_or(|at| at >= now));
        let registers = (before - self.registers.len()) as u64;
        Pruned { jobs: over.len() as u64, workers, registers, more: false }
    }

    /// A worker says that it lives (F1).
    pub(in crate::model) fn check_in(&mut self, request: &CheckIn) -> CheckedIn {
        let now = self.now;
        let CheckIn { worker, info, lost_after, leaving } = request.clone();
        let new = || Worker { record: WorkerRecord::new(worker, info.clone(), now), lost_after };
        let known = self.workers.entry(worker).or_insert_with(new);
        known.lost_after = lost_after;
        known.record.info = info;
        known.record.seen_at = now;
        known.record.left = leaving;
        CheckedIn { stop: known.record.stop_requested }
    }

    /// Asks workers to stop, those that have not left (F1).
    pub(in crate::model) fn stop_workers(&mut self, request: &StopWorkers) -> u64 {
        let meant = |record: &WorkerRecord| match request {
            StopWorkers::One(id) => record.worker == *id,
            StopWorkers::Host(host) => record.info.host == *host,
            StopWorkers::All => true,
        };
        let mut asked = 0;
        for worker in self.workers.values_mut().filter(|worker| !worker.record.left && meant(&worker.record))
        {
            worker.record.stop_requested = true;
            asked += 1;
        }
        asked
    }

    /// The workers, newest first (F1).
    pub(in crate::model) fn workers(&self) -> Vec<WorkerRecord> {
        let seen = |worker: &Worker| {
            let mut record = worker.record.clone();
            record.lost = !record.left && record.seen_at.plus(worker.lost_after) < self.now;
            record
        };
        self.workers.values().rev().map(seen).collect()
    }

    /// Writes a register over the version that its writer read; answers whether it was that one (F6, E2).
    pub(in crate::model) fn put_register(&mut self, request: &PutRegister) -> bool {
        let key = (request.space, request.name.clone());
        let there = self.registers.get(&key).map(|register| register.version);
        if there != Some(request.version) && there != request.expected {
            return false;
        }
        if there != Some(request.version) {
            self.registers.insert(key, request.clone().into());
        }
        true
    }

    /// Removes a register; answers whether it was there.
    pub(in crate::model) fn delete_register(&mut self, request: &DeleteRegister) -> bool {
        let key = (request.space, request.name.clone());
        let is_meant = self.registers.get(&key).is_some_and(|there| request.takes(there.version));
        is_meant && self.registers.remove(&key).is_some()
    }

    /// The registers of a space by name, and the hour (F6).
    pub(in crate::model) fn registers(&self, request: &Registers) -> RegisterPage {
        let asked = self.registers.values().filter(|register| {
            register.space == request.space
                && request.name.as_ref().is_none_or(|name| *name == register.name)
                && (!request.due || register.next.is_some_and(|next| next <= self.now))
        });
        RegisterPage { hour: self.now, registers: asked.cloned().collect() }
    }
}
