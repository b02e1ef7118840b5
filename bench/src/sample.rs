use std::time::Duration;

use tokio::time::Instant;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) jobs: usize,
    pub(crate) elapsed: Duration,
    /// Calls of the contract's methods, where there is a contract.
    pub(crate) calls: Option<u64>,
}

impl Sample {
    pub(crate) fn jobs_per_second(&self) -> f64 {
        self.jobs as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn calls_per_job(&self) -> Option<f64> {
        self.calls.map(|calls| calls as f64 / self.jobs as f64)
    }

    /// The sample in the middle by speed.
    pub(crate) fn median(mut samples: Vec<Self>) -> Option<Self> {
        samples.sort_by_key(|sample| sample.elapsed);
        samples.get(samples.len() / 2).copied()
    }
}

/// A stop watch that runs only while something is measured.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    elapsed: Duration,
}

impl Watch {
    /// Measures until this future is ready.
    pub(crate) async fn time<T>(&mut self, measured: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let output = measured.await;
        self.elapsed += begin.elapsed();
        output
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }
}
