use std::time::Duration;

use crate::backend::{NewFailure, Verdict};
use crate::job::{Payload, Reason};

/// How one attempt went, as the worker saw it. A job's failure is an outcome, not an error of ours.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The handler returned; this is what.
    Success(Option<Payload>),
    /// The handler failed, panicked or ran too long.
    Failure(JobFailure),
    /// The handler asked to be run again; the attempt stays spent.
    RetryRequested {
        /// After this long; by the retry policy if not said.
        after: Option<Duration>,
        /// Why, for the history.
        message: String,
    },
    /// The handler asked to be run later; the attempt is given back.
    Snoozed {
        /// After this long.
        after: Duration,
    },
    /// A rate limit was reached; the attempt is given back.
    RateLimited {
        /// After this long.
        after: Duration,
    },
    /// The job was given back untouched.
    Released,
    /// The worker stopped before the handler had ended; the attempt is given back.
    Interrupted,
    /// The handler ended the job itself, as cancelled.
    Aborted {
        /// Why, for the history.
        message: String,
    },
    /// The handler stopped because somebody asked to cancel the job.
    Cancelled,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// In which way.
    pub reason: Reason,
    /// The error's class, by which retry rules and people group: a type's name in most cases.
    pub class: String,
    /// What it says.
    pub message: String,
    /// Whether trying again is pointless.
    pub permanent: bool,
    /// Try again after this long, whatever the policy says.
    pub retry_after: Option<Duration>,
}

impl JobFailure {
    /// An error of this class that may be tried again.
    pub fn error(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: Reason::Error,
            class: class.into(),
            message: message.into(),
            permanent: false,
            retry_after: None,
        }
    }

    /// Ends the job: trying again is pointless.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.permanent = true;
        self
    }

    /// Tries again after this long, whatever the policy says.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl From<&str> for JobFailure {
    fn from(message: &str) -> Self {
        Self::error("error", message)
    }
}

impl From<String> for JobFailure {
    fn from(message: String) -> Self {
        Self::error("error", message)
    }
}

/// What is to be settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What the job becomes.
    pub verdict: Verdict,
    /// What joins its history.
    pub failure: Option<NewFailure>,
}
