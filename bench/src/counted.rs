use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_core::layer::Operation;
use leasehold_core::{Backend, Deadline};

use crate::Trouble;
use crate::server::Server;

/// Counts the round trips of a backend to its store. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    inner: Arc<dyn Backend>,
    calls: Arc<AtomicU64>,
    server: Option<Arc<Server>>,
}

impl Counted {
    /// Counts the calls of the contract's methods, where each is a round trip.
    pub(crate) fn calls_of(backend: impl Backend) -> Self {
        Self::shared(Arc::new(backend))
    }

    /// The same, of a backend that others have too.
    pub(crate) fn shared(backend: Arc<dyn Backend>) -> Self {
        Self { inner: backend, calls: Arc::default(), server: None }
    }

    /// Counts the commands that the server was sent, by whomever.
    pub(crate) fn commands_of(backend: impl Backend, server: Arc<Server>) -> Self {
        Self { server: Some(server), ..Self::calls_of(backend) }
    }

    /// How many round trips there were.
    pub(crate) async fn trips(&self) -> Result<u64, Trouble> {
        match &self.server {
            Some(server) => server.commands().await,
            None => Ok(self.calls.load(Ordering::Relaxed)),
        }
    }

    /// The server that counts, if one does.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }
}

impl Counted {
    async fn around<R, T, F>(
        &self,
        _: Operation,
        deadline: Deadline,
        request: R,
        call: impl FnOnce(R, Deadline) -> F,
    ) -> leasehold_core::Result<T>
    where
        F: Future<Output = leasehold_core::Result<T>>,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        call(request, deadline).await
    }
}

leasehold_core::around!(Counted);
