use std::future::Future;
use std::sync::Arc;

use super::Operation;
use crate::authoring::calls;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Deadline;

/// Ends calls that did not answer by their deadline (clause E3), even where a driver would wait for ever.
///
/// A call that may have changed something is then [`Unknown`](ErrorKind::Unknown) (clause E1), another one
/// [`Unavailable`](ErrorKind::Unavailable).
#[derive(Debug)]
pub struct Bound {
    inner: Arc<dyn Backend>,
}

impl Bound {
    /// Bounds the calls to `inner`.
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
        if deadline.has_passed() {
            return Err(calls::late().during(operation.name()));
        }
        let begun = tokio::time::Instant::now();
        let late = |_| {
            let kind = if operation.writes() { ErrorKind::Unknown } else { ErrorKind::Unavailable };
            let waited = begun.elapsed().as_millis();
            Error::new(kind, format!("the store did not answer within {waited} ms")).during(operation.name())
        };
        tokio::time::timeout_at(deadline.instant(), call(request, deadline))
            .await
            .unwrap_or_else(|e| Err(late(e)))
    }
}

crate::around!(Bound);
