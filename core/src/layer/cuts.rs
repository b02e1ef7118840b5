use std::future::Future;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Operation;
use crate::backend::Backend;
use crate::error::Result;
use crate::time::Deadline;

/// A store whose calls can be cut off before they are sent and after they were answered, for tests of crashes: by a
/// failpoint, where the process is to die, or by holding the call there for ever, for a caller that drops it.
#[derive(Debug)]
pub struct Cuts {
    inner: Arc<dyn Backend>,
    held_at: Option<String>,
    reached: Notify,
}

impl Cuts {
    /// Cuts no call off by itself.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, held_at: None, reached: Notify::new() }
    }

    /// Holds for ever whatever comes to this point.
    pub fn holding(inner: Arc<dyn Backend>, point: &str) -> Self {
        Self { held_at: Some(point.into()), ..Self::new(inner) }
    }

    /// Waits until something is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Comes to a point, maybe to stay there.
    pub async fn reach(&self, point: &str) {
        if self.held_at.as_deref() == Some(point) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
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
        if !operation.writes() {
            return call(request, deadline).await;
        }
        crate::fail_point!("call::before_send");
        self.reach("call::before_send").await;
        let answer = call(request, deadline).await;
        crate::fail_point!("call::done");
        self.reach("call::done").await;
        answer
    }
}

crate::around!(Cuts);
