//! What a job or a worker says through `tracing`, in its log.

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;

use super::attempt::Attempt;
use super::own_log::OwnLog;
use crate::backend::Level;

/// A `tracing` layer that writes what a job says into its capped log while it runs: every event in code that is
/// [a part of](Attempt::current) its attempt, with the event's fields. What a worker says outside of jobs is in the
/// [worker's own log](crate::Store::worker_log).
///
/// It never makes the job wait. When more comes than the store takes, the oldest lines that still wait go, and the log says
/// how many are missing.
///
/// ```
/// use leasehold_core::worker::JobLogs;
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let everything = tracing_subscriber::registry().with(JobLogs::default());
/// # let _ = everything;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct JobLogs {
    least: LevelFilter,
}

impl JobLogs {
    /// Writes events of this level and above. `TRACE` is kept as [`Level::Debug`]. Defaults to `INFO`.
    pub fn new(least: impl Into<LevelFilter>) -> Self {
        Self { least: least.into() }
    }
}

impl Default for JobLogs {
    fn default() -> Self {
        Self::new(LevelFilter::INFO)
    }
}

impl<S: Subscriber> Layer<S> for JobLogs {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > self.least {
            return;
        }
        let (attempt, worker) = (Attempt::current(), OwnLog::current());
        if attempt.is_none() && worker.is_none() {
            return;
        }
        let mut message = String::new();
        if DefaultFields::new().format_fields(Writer::new(&mut message), event).is_err() {
            return;
        }
        match (attempt, worker) {
            (Some(attempt), _) => attempt.log(kept(level), message),
            (None, Some(worker)) => worker.say(kept(level), message),
            (None, None) => {}
        }
    }
}

fn kept(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}
