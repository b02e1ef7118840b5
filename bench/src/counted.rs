use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_core::layer::Operation;
use leasehold_core::{Backend, Deadline};

use crate::Trouble;

/// A server that counts what it is sent.
#[cfg(feature = "stores")]
#[async_trait::async_trait]
pub(crate) trait Commands: std::fmt::Debug + Send + Sync {
    /// How many commands of each name it was sent so far, by whomever.
    async fn commands_by_name(&self) -> Result<BTreeMap<String, u64>, Trouble>;
}

/// Counts the round trips of a backend to its store. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    inner: Arc<dyn Backend>,
    calls: Arc<AtomicU64>,
    trips: Trips,
}

/// What the round trips are.
#[derive(Debug, Clone)]
enum Trips {
    Calls,
    #[cfg(feature = "stores")]
    Commands(Arc<dyn Commands>),
    Unknown,
}

impl Counted {
    /// Counts the calls of the contract's methods, where each is a round trip.
    pub(crate) fn calls_of(backend: Arc<dyn Backend>) -> Self {
        Self { inner: backend, calls: Arc::default(), trips: Trips::Calls }
    }

    /// Counts the commands that the server was sent.
    #[cfg(feature = "stores")]
    pub(crate) fn commands_of(backend: Arc<dyn Backend>, server: Arc<dyn Commands>) -> Self {
        Self { trips: Trips::Commands(server), ..Self::calls_of(backend) }
    }

    /// Counts no round trips, since nobody knows what they are.
    pub(crate) fn stranger(backend: Arc<dyn Backend>) -> Self {
        Self { trips: Trips::Unknown, ..Self::calls_of(backend) }
    }

    /// How many round trips there were, where they are counted.
    pub(crate) async fn trips(&self) -> Result<Option<u64>, Trouble> {
        match &self.trips {
            Trips::Calls => Ok(Some(self.calls.load(Ordering::Relaxed))),
            #[cfg(feature = "stores")]
            Trips::Commands(server) => Ok(Some(server.commands_by_name().await?.values().sum())),
            Trips::Unknown => Ok(None),
        }
    }

    /// What was asked for so far, by name where the store tells.
    pub(crate) async fn asked(&self) -> Result<BTreeMap<String, u64>, Trouble> {
        match &self.trips {
            #[cfg(feature = "stores")]
            Trips::Commands(server) => server.commands_by_name().await,
            _ => Ok(BTreeMap::from([("calls".to_owned(), self.calls.load(Ordering::Relaxed))])),
        }
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
