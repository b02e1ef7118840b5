use std::future::Future;
use std::sync::Arc;

use metrics::{counter, histogram};
use tracing::Instrument;

use super::Operation;
use crate::backend::Backend;
use crate::error::Result;
use crate::time::Deadline;

/// Makes a span and metrics of every call; their names are in `docs/telemetry.md`.
#[derive(Debug)]
pub struct Trace {
    inner: Arc<dyn Backend>,
}

impl Trace {
    /// Observes the calls to `inner`.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }

    async fn around<R, T, F>(
        &self,
        operation: Operation,
        deadline: Deadline,
        request: R,
        call: impl FnOnce(R, Deadline) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begun = tokio::time::Instant::now();
        let span = tracing::debug_span!("leasehold.call", operation = operation.name());
        let answer = call(request, deadline).instrument(span).await.map_err(|e| e.during(operation.name()));
        histogram!("leasehold_call_seconds", "operation" => operation.name()).record(begun.elapsed());
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(error) => error.kind().into(),
        };
        counter!("leasehold_calls_total", "operation" => operation.name(), "outcome" => outcome).increment(1);
        answer
    }
}

crate::around!(Trace);
