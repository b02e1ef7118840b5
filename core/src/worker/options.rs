use std::time::Duration;

use super::handler::Handler;
use crate::policy::RetryPolicy;

/// What holds for jobs of one kind, unless the job says otherwise.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct HandlerOptions {
    /// How long an attempt may run. Defaults to the worker's.
    pub timeout: Option<Duration>,
    /// When failed attempts are tried again. Defaults to the worker's.
    pub retry: Option<RetryPolicy>,
    /// How long a handler may go on once it was told to end, because its time is over or somebody cancelled its
    /// job; then it is dropped. Defaults to not being told that its time is over, and after a cancellation to
    /// the worker's [`cancel_grace`](super::WorkerBuilder::cancel_grace); what runs a program has a grace of its own.
    pub grace: Option<Duration>,
}

impl HandlerOptions {
    /// Sets how long an attempt may run. Defaults to the worker's.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets when failed attempts are tried again. Defaults to the worker's.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets how long a handler may go on once it was told to end, because its time is over or somebody cancelled
    /// its job; then it is dropped. Defaults to not being told that its time is over, and after a cancellation
    /// to the worker's [`cancel_grace`](super::WorkerBuilder::cancel_grace).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// With the grace that the handler needs, unless somebody said another.
    pub(super) fn of<A>(self, handler: &impl Handler<A>) -> Self {
        Self { grace: self.grace.or(handler.grace()), ..self }
    }
}

/// What holds for payloads of raw queues of one kind.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RawOptions {
    /// What holds for each payload, and for jobs of the kind.
    pub handler: HandlerOptions,
    /// How many payloads of one record run at once, beside other jobs of the worker. Defaults to 1.
    pub concurrency: usize,
}

impl Default for RawOptions {
    fn default() -> Self {
        Self { handler: HandlerOptions::default(), concurrency: 1 }
    }
}

impl RawOptions {
    /// Sets what holds for each payload, and for jobs of the kind.
    #[must_use]
    pub fn handler(mut self, options: HandlerOptions) -> Self {
        self.handler = options;
        self
    }

    /// Sets how many payloads of one record run at once, from 1 to 512. Defaults to 1.
    #[must_use]
    pub fn concurrency(mut self, payloads: usize) -> Self {
        self.concurrency = payloads.clamp(1, 512);
        self
    }
}
