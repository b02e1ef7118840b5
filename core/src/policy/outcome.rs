use std::fmt;
use std::time::Duration;

use crate::backend::{NewFailure, Verdict};
use crate::job::{Payload, Reason};
use crate::name::QueueName;

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
        /// In this queue from now on; none is the one that it is in.
        queue: Option<QueueName>,
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

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

impl std::error::Error for JobFailure {}

/// What a handler returns as an error to end its attempt in another way than by failure. It passes through
/// `?` and through any boxed error, such as `anyhow`'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Run it again after this long, or by the retry policy; the attempt stays spent.
    Retry(Option<Duration>),
    /// Run it again in another queue, by whoever works on that one; the attempt stays spent. It is in that queue from
    /// then on.
    RetryIn {
        /// The other queue.
        queue: QueueName,
        /// After this long; by the retry policy if not said.
        after: Option<Duration>,
    },
    /// Run it later; the attempt is given back.
    Snooze(Duration),
    /// A rate limit was reached: run it later; the attempt is given back.
    RateLimited(Duration),
    /// End it as cancelled, for this reason.
    Abort(String),
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(_) => f.write_str("the handler asked to be run again"),
            Self::RetryIn { queue, .. } => {
                write!(f, "the handler asked to be run again in the queue {queue}")
            }
            Self::Snooze(_) => f.write_str("the handler asked to be run later"),
            Self::RateLimited(_) => f.write_str("a rate limit was reached"),
            Self::Abort(why) => write!(f, "the handler ended the job: {why}"),
        }
    }
}

impl std::error::Error for Control {}

impl From<Control> for Outcome {
    fn from(control: Control) -> Self {
        match control {
            Control::Retry(after) => Self::RetryRequested { after, message: String::new(), queue: None },
            Control::RetryIn { queue, after } => {
                Self::RetryRequested { after, message: String::new(), queue: Some(queue) }
            }
            Control::Snooze(after) => Self::Snoozed { after },
            Control::RateLimited(after) => Self::RateLimited { after },
            Control::Abort(message) => Self::Aborted { message },
        }
    }
}

impl From<JobFailure> for Outcome {
    fn from(failure: JobFailure) -> Self {
        Self::Failure(failure)
    }
}

/// Any error that a handler may return: everything that `?` can box, text too.
pub trait HandlerError {
    /// The outcome of the attempt: what a [`JobFailure`] or a [`Control`] inside says, else a failure whose
    /// class is the error's type and whose message is the error with its causes.
    fn into_outcome(self) -> Outcome;
}

impl<E: Into<BoxError>> HandlerError for E {
    fn into_outcome(self) -> Outcome {
        let error = match self.into().downcast::<JobFailure>() {
            Ok(failure) => return Outcome::Failure(*failure),
            Err(error) => error,
        };
        let error = match error.downcast::<Control>() {
            Ok(control) => return (*control).into(),
            Err(error) => error,
        };
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Errors that repeat their cause in their own text would say it twice.
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Outcome::Failure(JobFailure::error(class_of::<E>(), message))
    }
}

/// The type's name, or plain `error` where the type says nothing about what went wrong.
fn class_of<E>() -> &'static str {
    let name = std::any::type_name::<E>();
    let says_nothing = name.contains("dyn ") || name.ends_with("str") || name.ends_with("::String");
    if says_nothing { "error" } else { name }
}

/// An error of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is to be settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What the job becomes.
    pub verdict: Verdict,
    /// What joins its history.
    pub failure: Option<NewFailure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_and_message(outcome: Outcome) -> (String, String) {
        let Outcome::Failure(JobFailure { class, message, .. }) = outcome else { panic!("{outcome:?}") };
        (class, message)
    }

    #[test]
    fn an_error_tells_its_class_and_its_causes() {
        let (class, message) = class_and_message(std::io::Error::other("no disk").into_outcome());
        assert_eq!((class.as_str(), message.as_str()), ("std::io::error::Error", "no disk"));
        let (class, message) = class_and_message("plain text".into_outcome());
        assert_eq!((class.as_str(), message.as_str()), ("error", "plain text"));
    }

    #[test]
    fn what_a_handler_wants_survives_boxing() {
        let boxed: BoxError = Control::Snooze(Duration::from_secs(1)).into();
        assert_eq!(boxed.into_outcome(), Outcome::Snoozed { after: Duration::from_secs(1) });
        let boxed: BoxError = JobFailure::error("mine", "bad").permanent().into();
        assert_eq!(boxed.into_outcome(), Outcome::Failure(JobFailure::error("mine", "bad").permanent()));
    }
}
