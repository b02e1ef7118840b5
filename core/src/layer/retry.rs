use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Operation;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Backoff;
use crate::time::Deadline;

/// Repeats calls that failed for a moment, until their deadline. Ids and tokens make a repetition have the
/// effect of one (clause E2); an error that waiting cannot mend is returned at once.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn Backend>,
    backoff: Backoff,
}

impl Retry {
    /// Repeats calls to `inner` after 10 ms, doubled up to 1 s, half of it left to chance.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        let (first, cap) = (Duration::from_millis(10), Duration::from_secs(1));
        Self { inner, backoff: Backoff::Exponential { first, factor: 2.0, cap, jitter: 0.5 } }
    }

    async fn around<R: Clone, T, F>(
        &self,
        _operation: Operation,
        deadline: Deadline,
        request: R,
        call: impl Fn(R, Deadline) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (mut tries, mut unknown) = (0, false);
        loop {
            tries += 1;
            let error = match call(request.clone(), deadline).await {
                Err(error) if error.is_transient() => error,
                answer => return answer,
            };
            unknown |= error.kind() == ErrorKind::Unknown;
            let wait = self.backoff.delay(tries, fastrand::f64());
            if error.kind() == ErrorKind::Full || deadline.left() <= wait {
                return Err(if unknown { in_doubt(error) } else { error });
            }
            tracing::debug!(%error, tries, "trying the store again");
            tokio::time::sleep(wait).await;
        }
    }
}

/// The error of a call of which an earlier try may have taken effect: whatever the last one says, that is not
/// known (clause E1).
fn in_doubt(error: Error) -> Error {
    if error.kind() == ErrorKind::Unknown {
        return error;
    }
    Error::new(ErrorKind::Unknown, "an earlier try was not answered and may have taken effect")
        .caused_by(error)
}

crate::around!(Retry);
