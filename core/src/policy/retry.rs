use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::outcome::{Decision, JobFailure, Outcome};
use crate::backend::{ExpiredLease, NewFailure, Verdict};
use crate::error::Error;
use crate::job::{JobRecord, Reason};
use crate::limits;
use crate::name::QueueName;

/// When a failed attempt is tried again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// How long to wait. Defaults to [`Backoff::default`].
    pub backoff: Backoff,
    /// What holds for errors of a class instead. Defaults to nothing.
    pub classes: BTreeMap<String, ClassRule>,
}

/// What holds for errors of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassRule {
    /// Wait this long.
    Backoff(Backoff),
    /// Do not try again.
    Fail,
}

impl RetryPolicy {
    /// Waits this long, whatever the error.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, classes: BTreeMap::new() }
    }

    /// Holds `rule` for errors of `class`.
    #[must_use]
    pub fn class(mut self, class: impl Into<String>, rule: ClassRule) -> Self {
        self.classes.insert(class.into(), rule);
        self
    }

    fn rule(&self, class: &str) -> Option<&Backoff> {
        match self.classes.get(class) {
            Some(ClassRule::Fail) => None,
            Some(ClassRule::Backoff(backoff)) => Some(backoff),
            None => Some(&self.backoff),
        }
    }
}

/// Decides what becomes of a job whose attempt went like `outcome` (clauses S1, S3, C4).
///
/// The job's own retry policy counts before `default`.
pub fn after_attempt(outcome: Outcome, job: &JobRecord, default: &RetryPolicy, roll: f64) -> Decision {
    let policy = job.options.retry.as_ref().unwrap_or(default);
    let only = |verdict| Decision { verdict, failure: None };
    let release = |reason, delay| only(Verdict::Release { reason, delay: at_most(delay) });
    match outcome {
        Outcome::Success(result) => only(Verdict::Succeed { result }),
        Outcome::Snoozed { after } => release(Reason::Snoozed, after),
        Outcome::RateLimited { after } => release(Reason::RateLimited, after),
        Outcome::Released => release(Reason::Released, Duration::ZERO),
        Outcome::Interrupted => release(Reason::Interrupted, Duration::ZERO),
        Outcome::Cancelled => only(Verdict::Cancel { reason: Reason::Cancelled }),
        Outcome::Aborted { message } => Decision {
            verdict: Verdict::Cancel { reason: Reason::Aborted },
            failure: Some(NewFailure { reason: Reason::Aborted, class: "abort".into(), message }),
        },
        Outcome::RetryRequested { after, message, queue } => {
            let failure = JobFailure {
                reason: Reason::RetryRequested,
                class: "retry".into(),
                message,
                permanent: false,
                retry_after: after,
            };
            after_failure(failure, queue, job, policy, roll)
        }
        Outcome::Failure(failure) => after_failure(failure, None, job, policy, roll),
    }
}

fn after_failure(
    failure: JobFailure,
    queue: Option<QueueName>,
    job: &JobRecord,
    policy: &RetryPolicy,
    roll: f64,
) -> Decision {
    let verdict = match policy.rule(&failure.class) {
        _ if failure.permanent => Verdict::Fail { reason: failure.reason },
        None => Verdict::Fail { reason: failure.reason },
        Some(_) if job.attempt >= job.options.max_attempts => Verdict::Fail { reason: Reason::MaxAttempts },
        Some(backoff) => {
            let delay = at_most(failure.retry_after.unwrap_or_else(|| backoff.delay(job.attempt, roll)));
            Verdict::Retry { reason: failure.reason, delay, queue }
        }
    };
    let failure = NewFailure { reason: failure.reason, class: failure.class, message: failure.message };
    Decision { verdict, failure: Some(failure) }
}

/// The longest wait there is, in place of a longer one: a store would refuse that, and the job be stranded.
fn at_most(delay: Duration) -> Duration {
    delay.min(limits::SPAN)
}

/// Decides what becomes of a job whose end was refused for what the handler returned, such as a result that is
/// too large: run again, it would be refused again.
pub fn after_refusal(error: &Error) -> Decision {
    let reason = Reason::Error;
    let failure = NewFailure { reason, class: "refused".into(), message: error.to_string() };
    Decision { verdict: Verdict::Fail { reason }, failure: Some(failure) }
}

/// Decides what becomes of a job whose lease ran out (clauses C3, C4, C5).
///
/// The crash budget counts before the attempts. The job's own retry policy counts before `default`.
pub fn after_expiry(lease: &ExpiredLease, default: &RetryPolicy, roll: f64) -> Decision {
    let crashes = lease.crashes.saturating_add(1);
    let policy = lease.retry.as_ref().unwrap_or(default);
    let verdict = if crashes > lease.crash_budget {
        Verdict::Fail { reason: Reason::Poison }
    } else if lease.attempt >= lease.max_attempts {
        Verdict::Fail { reason: Reason::MaxAttempts }
    } else {
        let delay = at_most(policy.backoff.delay(crashes, roll));
        Verdict::Retry { reason: Reason::LeaseExpired, delay, queue: None }
    };
    let message = format!(
        "the lease of attempt {} of {} ran out: its worker crashed, froze or was cut off (crash {crashes}, budget {})",
        lease.attempt, lease.max_attempts, lease.crash_budget
    );
    let failure = NewFailure { reason: Reason::LeaseExpired, class: "lease_expired".into(), message };
    Decision { verdict, failure: Some(failure) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobId, JobOptions, Kind, LeaseToken, Payload, QueueName, Timestamp};

    fn job(attempt: u32, max_attempts: u32) -> JobRecord {
        let options = JobOptions { max_attempts, ..JobOptions::default() };
        let (queue, kind, t) = (QueueName::default(), Kind::new("k").unwrap(), Timestamp::default());
        let mut job = JobRecord::new(JobId::generate(), queue, kind, Payload::EMPTY, options, t, t);
        job.attempt = attempt;
        job
    }

    fn verdict(outcome: Outcome, attempt: u32, max_attempts: u32) -> Verdict {
        after_attempt(outcome, &job(attempt, max_attempts), &RetryPolicy::default(), 0.0).verdict
    }

    fn error() -> Outcome {
        Outcome::Failure(JobFailure::error("io", "broken"))
    }

    #[test]
    fn an_error_is_tried_again_until_the_attempts_are_spent() {
        let retry = |s| Verdict::Retry { reason: Reason::Error, delay: Duration::from_secs(s), queue: None };
        assert_eq!(verdict(error(), 1, 3), retry(1));
        assert_eq!(verdict(error(), 2, 3), retry(2));
        assert_eq!(verdict(error(), 3, 3), Verdict::Fail { reason: Reason::MaxAttempts });
    }

    #[test]
    fn a_permanent_error_ends_the_job() {
        let outcome = Outcome::Failure(JobFailure::error("io", "broken").permanent());
        assert_eq!(verdict(outcome, 1, 3), Verdict::Fail { reason: Reason::Error });
    }

    #[test]
    fn a_class_has_its_own_rule_and_the_job_its_own_policy() {
        let policy = RetryPolicy::default()
            .class("io", ClassRule::Fail)
            .class("busy", ClassRule::Backoff(Backoff::Fixed { delay: Duration::from_secs(7) }));
        let mut job = job(1, 3);
        job.options.retry = Some(policy);
        let decide = |class: &str| {
            let outcome = Outcome::Failure(JobFailure::error(class, ""));
            after_attempt(outcome, &job, &RetryPolicy::default(), 0.0).verdict
        };
        assert_eq!(decide("io"), Verdict::Fail { reason: Reason::Error });
        assert_eq!(
            decide("busy"),
            Verdict::Retry { reason: Reason::Error, delay: Duration::from_secs(7), queue: None }
        );
        assert_eq!(
            decide("other"),
            Verdict::Retry { reason: Reason::Error, delay: Duration::from_secs(1), queue: None }
        );
    }

    #[test]
    fn what_is_nobodys_fault_costs_no_attempt() {
        let after = Duration::from_secs(5);
        for outcome in [
            Outcome::Snoozed { after },
            Outcome::RateLimited { after },
            Outcome::Released,
            Outcome::Interrupted,
        ] {
            assert!(matches!(verdict(outcome.clone(), 3, 3), Verdict::Release { .. }), "{outcome:?}");
        }
    }

    #[test]
    fn no_wait_is_longer_than_a_store_takes() {
        let after = Duration::MAX;
        for outcome in [
            Outcome::Snoozed { after },
            Outcome::RateLimited { after },
            Outcome::RetryRequested { after: Some(after), message: String::new(), queue: None },
            Outcome::Failure(JobFailure::error("io", "broken").retry_after(after)),
        ] {
            let (Verdict::Retry { delay, .. } | Verdict::Release { delay, .. }) = verdict(outcome, 1, 3)
            else {
                panic!("it is not to end");
            };
            assert_eq!(delay, limits::SPAN);
        }
    }

    #[test]
    fn a_crash_spends_its_attempt_and_its_budget() {
        let lease = |attempt, crashes| ExpiredLease {
            job: JobId::generate(),
            token: LeaseToken::from_uuid(uuid::Uuid::nil()),
            queue: QueueName::default(),
            kind: Kind::new("k").unwrap(),
            worker: None,
            attempt,
            max_attempts: 10,
            crashes,
            crash_budget: 2,
            retry: None,
        };
        let decide =
            |attempt, crashes| after_expiry(&lease(attempt, crashes), &RetryPolicy::default(), 0.0).verdict;
        assert_eq!(
            decide(1, 0),
            Verdict::Retry { reason: Reason::LeaseExpired, delay: Duration::from_secs(1), queue: None }
        );
        assert_eq!(
            decide(2, 1),
            Verdict::Retry { reason: Reason::LeaseExpired, delay: Duration::from_secs(2), queue: None }
        );
        assert_eq!(decide(3, 2), Verdict::Fail { reason: Reason::Poison });
        assert_eq!(decide(10, 0), Verdict::Fail { reason: Reason::MaxAttempts });
    }
}
