//! What an event makes of a job's record: pure, for every store that keeps its records whole. Who may bring the
//! event about, and what else it changes, such as a unique key or a count, is the store's to know.

use std::time::Duration;

use super::new_job::NewJob;
use super::options::UniqueScope;
use super::record::{Failure, JobRecord};
use super::state::{Reason, State};
use crate::backend::{Action, AmendAnswer, NewFailure, Verdict};
use crate::id::WorkerId;
use crate::name::UniqueKey;
use crate::time::Timestamp;

impl JobRecord {
    /// Brings the state up to `now`: a scheduled job becomes queued by the passing of time alone.
    pub fn look(&mut self, now: Timestamp) {
        if self.state.is_waiting() {
            self.state = State::waiting(self.due, now);
        }
    }

    /// Puts it under a lease, which spends an attempt (clause C4).
    pub fn start(&mut self, worker: WorkerId, lease: Duration, now: Timestamp) {
        self.state = State::Running;
        self.reason = None;
        self.attempt += 1;
        self.worker = Some(worker);
        self.started_at = Some(now);
        self.lease_until = Some(now.plus(lease));
    }

    /// Ends its attempt as its holder, or a recoverer, says. The right to say so was checked.
    pub fn settle(&mut self, verdict: Verdict, failure: Option<NewFailure>, now: Timestamp) {
        if let Some(NewFailure { reason, class, message }) = failure {
            let (attempt, worker) = (self.attempt, self.worker);
            self.remember(Failure { attempt, worker, at: now, reason, class, message });
        }
        match verdict {
            Verdict::Succeed { result } => {
                self.result = result;
                self.end(State::Succeeded, None, now);
            }
            Verdict::Fail { reason } => self.end(State::Failed, Some(reason), now),
            Verdict::Cancel { reason } => self.end(State::Cancelled, Some(reason), now),
            Verdict::Retry { .. } | Verdict::Release { .. } if self.cancel_requested => {
                self.end(State::Cancelled, Some(Reason::Cancelled), now);
            }
            // A policy does not ask for this; if one does, the job must not wait for a claim that never takes it.
            Verdict::Retry { .. } if self.attempt >= self.options.max_attempts => {
                self.end(State::Failed, Some(Reason::MaxAttempts), now);
            }
            Verdict::Retry { reason, delay, queue } => {
                self.queue = queue.unwrap_or_else(|| self.queue.clone());
                self.wait(now.plus(delay), reason, now);
            }
            Verdict::Release { reason, delay } => {
                self.attempt -= 1;
                let due = if delay.is_zero() { self.due } else { now.plus(delay) };
                self.wait(due, reason, now);
            }
        }
    }

    /// Does what an operator asked for where its state allows it, and answers what came of it. Whether a requeued job
    /// gets its unique key again, and the removal of a deleted one, are the store's to see to.
    pub fn amend(&mut self, action: &Action, now: Timestamp) -> AmendAnswer {
        self.look(now);
        if self.is_withdrawn() {
            return self.amend_withdrawn(action, now);
        }
        match action {
            Action::Cancel if self.state == State::Cancelled => return AmendAnswer::AlreadyApplied,
            Action::Cancel if self.state == State::Running => {
                self.cancel_requested = true;
                return AmendAnswer::Requested;
            }
            Action::Cancel if self.state.is_waiting() => {
                self.end(State::Cancelled, Some(Reason::Cancelled), now);
            }
            Action::Requeue { due } if self.state.is_terminal() => self.requeue(due.by(now), now),
            Action::Delete if self.state != State::Running => {}
            Action::Move { queue } if *queue == self.queue => return AmendAnswer::AlreadyApplied,
            Action::Move { queue } if self.state != State::Running => self.queue = queue.clone(),
            Action::Reprioritise { priority } if *priority == self.options.priority => {
                return AmendAnswer::AlreadyApplied;
            }
            Action::Reprioritise { priority } => self.options.priority = *priority,
            Action::Postpone { due } if self.state.is_waiting() => {
                if due.by(now) == self.due {
                    return AmendAnswer::AlreadyApplied;
                }
                self.wait(due.by(now), Reason::Postponed, now);
            }
            Action::Unpark { .. } if !self.is_parked() => return AmendAnswer::AlreadyApplied,
            // Like one that was just enqueued: nothing is left to say of what it waited for.
            Action::Unpark { due } => self.wait(due.by(now), None, now),
            Action::CancelParked if self.state == State::Cancelled => return AmendAnswer::AlreadyApplied,
            Action::CancelParked if self.is_parked() => {
                self.end(State::Cancelled, Some(Reason::Dependency), now);
            }
            Action::Withdraw if self.state.is_waiting() => {
                self.end(State::Cancelled, Some(Reason::Moved), now);
            }
            Action::Restore if self.state.is_waiting() => return AmendAnswer::AlreadyApplied,
            Action::DeleteEnded { by } if self.ended_by(*by) => {}
            _ => return AmendAnswer::Refused(self.state),
        }
        AmendAnswer::Applied
    }

    /// What may be done to a job that goes on elsewhere (clause P8).
    fn amend_withdrawn(&mut self, action: &Action, now: Timestamp) -> AmendAnswer {
        match action {
            Action::Withdraw => return AmendAnswer::AlreadyApplied,
            Action::Restore => {
                self.finished_at = None;
                self.wait(self.due, None, now);
            }
            Action::Delete => {}
            Action::DeleteEnded { by } if self.ended_by(*by) => {}
            _ => return AmendAnswer::Refused(self.state),
        }
        AmendAnswer::Applied
    }

    /// Whether it was withdrawn, to go on in another store (clause P8).
    pub fn is_withdrawn(&self) -> bool {
        self.state == State::Cancelled && self.reason == Some(Reason::Moved)
    }

    fn ended_by(&self, moment: Timestamp) -> bool {
        self.state.is_terminal() && self.finished_at.is_some_and(|at| at <= moment)
    }

    /// Gives it the payload, priority and due time of a newcomer with its unique key, if that wants it and it waits and
    /// is of the same kind (clause P4). Answers whether it did.
    pub fn replace(&mut self, new: &NewJob, now: Timestamp) -> bool {
        let on_conflict = new.on_conflict();
        if on_conflict.is_keep() || !self.state.is_waiting() || self.kind != new.kind {
            return false;
        }
        self.payload = new.payload.clone();
        self.options.priority = new.options.priority;
        self.progress = None;
        self.wait(on_conflict.due(new.due.by(now), self.enqueued_at), Reason::Replaced, now);
        true
    }

    /// Makes it end, to be kept as long as its retention says (clauses S1, F5).
    pub fn end(&mut self, state: State, reason: Option<Reason>, now: Timestamp) {
        self.finished_at = Some(now);
        self.leave(state, reason);
        self.expires_at = self.expiry();
    }

    /// From when on a pruning may remove it, by its retention (clause F5). One that was withdrawn is never removed by age.
    pub fn expiry(&self) -> Option<Timestamp> {
        let ended = self.finished_at.filter(|_| self.state.is_terminal() && !self.is_withdrawn())?;
        self.options.retention.of(self.state).until(ended)
    }

    /// The unique key that it holds, if it holds one (clause P4). One that it holds for a period may have gone to
    /// another job since the period ended.
    pub fn held_key(&self, now: Timestamp) -> Option<&UniqueKey> {
        let unique = self.options.unique.as_ref()?;
        let holds = match unique.scope {
            // Not by its attempts: a release gives the first one back, and a requeue counts anew.
            UniqueScope::UntilClaimed => {
                self.state.is_waiting() && self.started_at.is_none() && self.generation == 0
            }
            UniqueScope::UntilFinished => !self.state.is_terminal(),
            UniqueScope::For(period) => self.enqueued_at.plus(period) >= now,
        };
        holds.then_some(&unique.key)
    }

    /// The unique key that it takes again if this brings it back (clause P4).
    pub fn key_taken_again(&self, action: &Action) -> Option<&UniqueKey> {
        let unique = self.options.unique.as_ref()?;
        let was_claimed = self.started_at.is_some() || self.generation > 0;
        unique.is_taken_again(action, was_claimed).then_some(&unique.key)
    }

    fn requeue(&mut self, due: Timestamp, now: Timestamp) {
        self.generation += 1;
        (self.attempt, self.crashes) = (0, 0);
        (self.result, self.progress) = (None, None);
        (self.finished_at, self.expires_at) = (None, None);
        self.wait(due, Reason::Requeued, now);
    }

    fn wait(&mut self, due: Timestamp, reason: impl Into<Option<Reason>>, now: Timestamp) {
        self.due = due;
        self.leave(State::waiting(due, now), reason.into());
    }

    fn leave(&mut self, state: State, reason: Option<Reason>) {
        self.state = state;
        self.reason = reason;
        self.lease_until = None;
        self.cancel_requested = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Cause, Due, JobOptions, Keep, Payload, Retention, Unique};
    use crate::{JobId, Kind, QueueName};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn job() -> JobRecord {
        let (queue, kind) = (QueueName::default(), Kind::new("work").unwrap());
        let options = JobOptions { max_attempts: 3, ..JobOptions::default() };
        JobRecord::new(JobId::generate(), queue, kind, Payload::EMPTY, options, NOW, NOW)
    }

    fn running() -> JobRecord {
        let mut job = job();
        job.start(WorkerId::generate(), SECOND, NOW);
        job
    }

    fn in_state(state: State) -> JobRecord {
        let mut job = if state == State::Running { running() } else { job() };
        match state {
            State::Scheduled => job.wait(NOW.plus(SECOND), Reason::Error, NOW),
            State::Queued | State::Running => {}
            ended => job.end(ended, None, NOW),
        }
        assert_eq!(job.state, state);
        job
    }

    fn verdicts() -> Vec<(Verdict, Cause)> {
        let (reason, delay) = (Reason::Error, SECOND);
        vec![
            (Verdict::Succeed { result: None }, Cause::Finish),
            (Verdict::Fail { reason }, Cause::Finish),
            (Verdict::Cancel { reason }, Cause::Finish),
            (Verdict::Retry { reason, delay, queue: None }, Cause::Retry),
            (Verdict::Retry { reason, delay: Duration::ZERO, queue: None }, Cause::Retry),
            (Verdict::Release { reason, delay }, Cause::Release),
            (Verdict::Release { reason, delay: Duration::ZERO }, Cause::Release),
        ]
    }

    #[test]
    fn settles_by_the_table_and_drops_the_lease() {
        for (verdict, cause) in verdicts() {
            let mut job = running();
            job.settle(verdict.clone(), None, NOW);
            assert!(State::Running.may_become(job.state, cause), "{verdict:?} makes it {}", job.state);
            assert_eq!((job.lease_until, job.finished_at.is_some()), (None, job.state.is_terminal()));
            let given_back = u32::from(cause != Cause::Release);
            assert_eq!(job.attempt, given_back, "{verdict:?}");
        }
    }

    #[test]
    fn amends_by_the_table() {
        let due = Due::In(SECOND);
        let actions = [
            (Action::Cancel, Cause::Cancel),
            (Action::Requeue { due }, Cause::Requeue),
            (Action::Postpone { due: Due::In(2 * SECOND) }, Cause::Postpone),
            (Action::Postpone { due: Due::PARKED }, Cause::Postpone),
            (Action::Unpark { due }, Cause::Unpark),
            (Action::CancelParked, Cause::Cancel),
            (Action::Withdraw, Cause::Withdraw),
            (Action::Restore, Cause::Restore),
        ];
        for state in State::ALL {
            for (action, cause) in &actions {
                let mut job = in_state(state);
                let before = job.clone();
                match job.amend(action, NOW) {
                    AmendAnswer::Applied => {
                        assert!(state.may_become(job.state, *cause), "{state} {action:?}");
                    }
                    AmendAnswer::Requested => assert!(job.cancel_requested && state == State::Running),
                    _ => assert_eq!(job, before, "{state} {action:?}"),
                }
            }
        }
    }

    #[test]
    fn leaves_a_running_job_where_it_is() {
        let elsewhere = Action::Move { queue: QueueName::new("elsewhere").unwrap() };
        for action in [Action::Delete, elsewhere, Action::Postpone { due: Due::Now }] {
            assert_eq!(running().amend(&action, NOW), AmendAnswer::Refused(State::Running));
        }
        assert_eq!(running().amend(&Action::Reprioritise { priority: 3 }, NOW), AmendAnswer::Applied);
    }

    #[test]
    fn unparks_and_cancels_what_is_parked_and_nothing_else() {
        let parked = || {
            let mut job = in_state(State::Scheduled);
            assert_eq!(job.amend(&Action::Postpone { due: Due::PARKED }, NOW), AmendAnswer::Applied);
            assert!(job.is_parked());
            job
        };
        for (due, state) in [(Due::Now, State::Queued), (Due::In(SECOND), State::Scheduled)] {
            let mut job = parked();
            assert_eq!(job.amend(&Action::Unpark { due }, NOW), AmendAnswer::Applied);
            assert_eq!((job.state, job.reason, job.due), (state, None, due.by(NOW)));
            assert_eq!(job.amend(&Action::CancelParked, NOW), AmendAnswer::Refused(state));
        }
        let mut job = parked();
        assert_eq!(job.amend(&Action::CancelParked, NOW), AmendAnswer::Applied);
        assert_eq!((job.state, job.reason), (State::Cancelled, Some(Reason::Dependency)));
        for state in State::ALL {
            let (mut job, before) = (in_state(state), in_state(state).state);
            assert_eq!(job.amend(&Action::Unpark { due: Due::Now }, NOW), AmendAnswer::AlreadyApplied);
            let ended = state == State::Cancelled;
            let expected = if ended { AmendAnswer::AlreadyApplied } else { AmendAnswer::Refused(state) };
            assert_eq!(job.amend(&Action::CancelParked, NOW), expected);
            assert_eq!(job.state, before);
        }
    }

    #[test]
    fn a_withdrawn_job_waits_for_its_way_back_or_its_end_and_for_nothing_else() {
        for state in [State::Scheduled, State::Queued] {
            let (mut job, before) = (in_state(state), in_state(state));
            assert_eq!(job.amend(&Action::Withdraw, NOW), AmendAnswer::Applied);
            assert!(job.is_withdrawn() && job.due == before.due && job.expires_at.is_none());
            assert_eq!(job.amend(&Action::Withdraw, NOW), AmendAnswer::AlreadyApplied);
            let parked = Due::PARKED;
            let others = [
                Action::Cancel,
                Action::CancelParked,
                Action::Requeue { due: Due::Now },
                Action::Postpone { due: parked },
                Action::Unpark { due: Due::Now },
                Action::Reprioritise { priority: 3 },
                Action::Move { queue: QueueName::new("elsewhere").unwrap() },
                Action::DeleteEnded { by: NOW.minus(SECOND) },
            ];
            for action in others {
                let was = job.clone();
                assert_eq!(job.amend(&action, NOW), AmendAnswer::Refused(State::Cancelled), "{action:?}");
                assert_eq!(job, was);
            }
            assert_eq!(job.clone().amend(&Action::DeleteEnded { by: NOW }, NOW), AmendAnswer::Applied);
            assert_eq!(job.clone().amend(&Action::Delete, NOW), AmendAnswer::Applied);
            assert_eq!(job.amend(&Action::Restore, NOW), AmendAnswer::Applied);
            assert_eq!((job.state, job.due, job.attempt), (state, before.due, before.attempt));
            assert_eq!(job.amend(&Action::Restore, NOW), AmendAnswer::AlreadyApplied);
        }
        for state in [State::Running, State::Succeeded, State::Failed, State::Cancelled] {
            for action in [Action::Withdraw, Action::Restore] {
                assert_eq!(in_state(state).amend(&action, NOW), AmendAnswer::Refused(state), "{action:?}");
            }
        }
    }

    #[test]
    fn ends_what_was_asked_to_and_what_has_no_attempt_left() {
        let queue = || Some(QueueName::new("elsewhere").unwrap());
        let retry = || Verdict::Retry { reason: Reason::Error, delay: SECOND, queue: queue() };
        let mut asked = running();
        assert_eq!(asked.amend(&Action::Cancel, NOW), AmendAnswer::Requested);
        asked.settle(retry(), None, NOW);
        assert_eq!((asked.state, asked.reason), (State::Cancelled, Some(Reason::Cancelled)));
        let mut last = running();
        last.attempt = last.options.max_attempts;
        last.settle(retry(), None, NOW);
        assert_eq!((last.state, last.reason), (State::Failed, Some(Reason::MaxAttempts)));
    }

    #[test]
    fn keeps_an_ended_job_as_long_as_its_producer_asked() {
        let seconds = |n| Keep::For(n * SECOND);
        let retention = Retention { succeeded: seconds(1), failed: seconds(2), cancelled: Keep::Forever };
        let ends = [(State::Succeeded, Some(1)), (State::Failed, Some(2)), (State::Cancelled, None)];
        for (state, seconds) in ends {
            let mut job = job();
            job.options.retention = retention;
            job.end(state, None, NOW);
            assert_eq!(job.expires_at, seconds.map(|n| NOW.plus(n * SECOND)));
        }
    }

    #[test]
    fn holds_its_key_as_long_as_its_scope_says() {
        let holds = |scope, job: &JobRecord, now| {
            let mut job = job.clone();
            job.options.unique = Some(Unique::new(UniqueKey::new("k").unwrap(), scope));
            job.held_key(now).is_some()
        };
        let mut released = running();
        released.settle(Verdict::Release { reason: Reason::Released, delay: Duration::ZERO }, None, NOW);
        let mut again = in_state(State::Cancelled);
        again.amend(&Action::Requeue { due: Due::Now }, NOW);
        let jobs = [job(), running(), released, in_state(State::Failed), again];
        let all = |scope| jobs.iter().map(|job| holds(scope, job, NOW)).collect::<Vec<_>>();
        assert_eq!(all(UniqueScope::UntilClaimed), [true, false, false, false, false]);
        assert_eq!(all(UniqueScope::UntilFinished), [true, true, true, false, true]);
        assert_eq!(all(UniqueScope::For(SECOND)), [true; 5]);
        assert!(!holds(UniqueScope::For(SECOND), &job(), NOW.plus(SECOND + Duration::from_millis(1))));
    }

    #[test]
    fn comes_back_from_json() {
        let mut job = running();
        let failure = NewFailure { reason: Reason::Panic, class: "c".into(), message: "m".into() };
        job.settle(Verdict::Fail { reason: Reason::Panic }, Some(failure), NOW);
        let json = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<JobRecord>(&json).unwrap(), job);
    }
}
