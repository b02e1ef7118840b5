use leasehold_core::backend::{Answer, LogAppend, Settlement, Verdict};
use leasehold_core::{Failure, JobId, Keep, Reason, State, Timestamp};

use super::{Job, Line, Reference};

impl Reference {
    /// Writes how an attempt ended, as its holder says (C2, S1, S3).
    pub(in crate::model) fn settle(&mut self, settlement: &Settlement) -> Answer {
        self.write(settlement, false)
    }

    /// Writes how an attempt ended, as whoever takes it back says: only after its lease has run out (C2, C5).
    pub(in crate::model) fn recover(&mut self, settlement: &Settlement) -> Answer {
        self.write(settlement, true)
    }

    fn write(&mut self, settlement: &Settlement, recovers: bool) -> Answer {
        let (now, mark) = (self.now, (settlement.token, settlement.verdict.name(), recovers));
        let Some(job) = self.jobs.get_mut(&settlement.job) else { return Answer::Lost };
        if job.token != Some(settlement.token) {
            return if job.settled == Some(mark) { Answer::AlreadyApplied } else { Answer::Lost };
        }
        if recovers && job.record.lease_until.is_some_and(|until| until >= now) {
            return Answer::Lost;
        }
        job.settled = Some(mark);
        job.record.crashes += u32::from(recovers);
        job.remember(settlement, now);
        job.become_what(&settlement.verdict, now);
        if let Verdict::Retry { queue: Some(to), .. } = &settlement.verdict
            && !job.record.state.is_terminal()
            && job.record.queue != *to
        {
            let from = std::mem::replace(&mut job.record.queue, to.clone());
            self.queue(&from).deleted += 1;
            self.queue(to).enqueued += 1;
        }
        Answer::Applied
    }

    /// Adds to a log what is not in it yet (C2, E2, L2).
    pub(in crate::model) fn log(&mut self, append: &LogAppend) -> Answer {
        let now = self.now;
        let Some(job) = self.held(append.job, append.token) else { return Answer::Lost };
        let known = job.logged.saturating_sub(append.position) as usize;
        if !append.lines.is_empty() && known >= append.lines.len() {
            return Answer::AlreadyApplied;
        }
        job.logged = job.logged.max(append.position + append.lines.len() as u64);
        let (attempt, worker) = (job.record.attempt, job.record.worker);
        let new = append.lines.iter().skip(known);
        job.lines.extend(new.map(|line| Line { attempt, worker, at: now, message: line.message.clone() }));
        Answer::Applied
    }

    /// A job's log.
    pub(in crate::model) fn lines(&self, job: JobId) -> Vec<Line> {
        self.jobs.get(&job).map(|job| job.lines.clone()).unwrap_or_default()
    }

    /// How many lines were logged under a job's present lease.
    pub(in crate::model) fn logged(&self, job: JobId) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.logged)
    }
}

impl Job {
    fn remember(&mut self, settlement: &Settlement, now: Timestamp) {
        let (attempt, worker) = (self.record.attempt, self.record.worker);
        let Some(failure) = settlement.failure.clone() else { return };
        self.record.remember(Failure {
            attempt,
            worker,
            at: now,
            reason: failure.reason,
            class: failure.class,
            message: failure.message,
        });
    }

    fn become_what(&mut self, verdict: &Verdict, now: Timestamp) {
        let record = &mut self.record;
        let spent = record.attempt >= record.options.max_attempts;
        match verdict {
            Verdict::Succeed { result } => {
                record.result.clone_from(result);
                self.end(State::Succeeded, None, now);
            }
            Verdict::Fail { reason } => self.end(State::Failed, Some(*reason), now),
            Verdict::Cancel { reason } => self.end(State::Cancelled, Some(*reason), now),
            Verdict::Retry { .. } | Verdict::Release { .. } if record.cancel_requested => {
                self.end(State::Cancelled, Some(Reason::Cancelled), now);
            }
            Verdict::Retry { .. } if spent => self.end(State::Failed, Some(Reason::MaxAttempts), now),
            Verdict::Retry { reason, delay, .. } => self.wait(now.plus(*delay), *reason),
            Verdict::Release { reason, delay } => {
                record.attempt -= 1;
                let due = if delay.is_zero() { record.due } else { now.plus(*delay) };
                self.wait(due, *reason);
            }
        }
    }

    pub(super) fn wait(&mut self, due: Timestamp, reason: impl Into<Option<Reason>>) {
        self.let_go();
        self.record.state = State::Scheduled;
        self.record.due = due;
        self.record.reason = reason.into();
    }

    pub(super) fn end(&mut self, state: State, reason: Option<Reason>, now: Timestamp) {
        self.let_go();
        let retention = &self.record.options.retention;
        let keep = match state {
            State::Succeeded => retention.succeeded,
            State::Failed => retention.failed,
            _ => retention.cancelled,
        };
        self.record.state = state;
        self.record.reason = reason;
        self.record.finished_at = Some(now);
        self.record.expires_at = match keep {
            Keep::For(span) => Some(now.plus(span)),
            Keep::Forever => None,
        };
    }

    fn let_go(&mut self) {
        self.token = None;
        self.record.lease_until = None;
        self.record.cancel_requested = false;
    }
}
