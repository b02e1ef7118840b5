use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::gauges::Gauges;
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry;

/// The bounds of the buckets of histograms, in seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0];

/// Metrics of this process and of its store as text that Prometheus reads. Clones are the same.
///
/// ```
/// # async fn example(store: leasehold_core::Store) -> leasehold_core::Result<()> {
/// let metrics = leasehold_core::client::Prometheus::install(&store)?;
/// let body = metrics.text().await; // of each answer to GET /metrics
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Prometheus {
    handle: PrometheusHandle,
    gauges: Arc<Gauges>,
}

impl Prometheus {
    /// The type of the [text](Self::text), for `Content-Type`.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Collects what this process counts from now on, and looks after this store. Once in a process.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if the process collects metrics already: then give [`of`](Self::of) the handle of its
    /// exporter, or call [`Gauges::refresh`] before another one reads.
    pub fn install(store: &Store) -> Result<Self> {
        let recorder = Self::builder().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| {
            Error::new(
                ErrorKind::Conflict,
                "this process collects metrics already; use its exporter's handle",
            )
        })?;
        telemetry::describe();
        Ok(Self::of(handle, store))
    }

    /// An exporter with the right buckets, for who sets more of it.
    pub fn builder() -> PrometheusBuilder {
        // Only an empty list of buckets is refused.
        PrometheusBuilder::new().set_buckets(&BUCKETS).expect("there are buckets")
    }

    /// The metrics of an exporter that is installed, and of this store.
    pub fn of(handle: PrometheusHandle, store: &Store) -> Self {
        Self { handle, gauges: store.gauges() }
    }

    /// The present state of all metrics, those of the store at most 5 s old if it answers.
    pub async fn text(&self) -> String {
        self.gauges.refresh().await;
        self.handle.run_upkeep();
        self.handle.render()
    }
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").field("gauges", &self.gauges).finish_non_exhaustive()
    }
}
