use std::time::Duration;

use tokio::time::Instant;

use crate::work::Work;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) jobs: usize,
    pub(crate) elapsed: Duration,
    /// Round trips to the store, where they are counted.
    pub(crate) trips: Option<u64>,
    /// What the server did, where it tells.
    pub(crate) work: Option<Work>,
    /// How much longer the slowest of its rounds took than the fastest: what the machine is worth just now.
    pub(crate) spread: f64,
}

impl Sample {
    pub(crate) fn new(jobs: usize, elapsed: Duration, trips: Option<u64>) -> Self {
        Self { jobs, elapsed, trips, work: None, spread: 1.0 }
    }

    pub(crate) fn with(self, work: Option<Work>) -> Self {
        Self { work, ..self }
    }

    /// What both took, of the same jobs.
    pub(crate) fn then(self, other: Self) -> Self {
        let trips = self.trips.zip(other.trips).map(|(first, second)| first + second);
        let mut work = self.work;
        if let Some((both, more)) = work.as_mut().zip(other.work) {
            *both += more;
        }
        Self::new(self.jobs, self.elapsed + other.elapsed, trips).with(work)
    }

    pub(crate) fn jobs_per_second(&self) -> f64 {
        self.jobs as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn trips_per_job(&self) -> Option<f64> {
        self.trips.map(|trips| trips as f64 / self.jobs as f64)
    }

    /// Microseconds of the server's processor.
    pub(crate) fn processor_per_job(&self) -> Option<f64> {
        self.work.map(|work| work.processor.as_secs_f64() * 1e6 / self.jobs as f64)
    }

    pub(crate) fn commands_per_job(&self) -> Option<f64> {
        self.work.map(|work| work.commands as f64 / self.jobs as f64)
    }

    /// The sample in the middle by speed, with the spread of all.
    pub(crate) fn median(mut samples: Vec<Self>) -> Option<Self> {
        samples.sort_by_key(|sample| sample.elapsed);
        let (fastest, slowest) = (samples.first()?.elapsed, samples.last()?.elapsed);
        let median = samples[samples.len() / 2];
        Some(Self { spread: slowest.as_secs_f64() / fastest.as_secs_f64(), ..median })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_tells_the_spread() {
        let samples = [4, 1, 2].map(|seconds| Sample::new(8, Duration::from_secs(seconds), Some(2)));
        let median = Sample::median(samples.to_vec()).unwrap();
        assert_eq!((median.jobs_per_second(), median.spread, median.trips_per_job()), (4.0, 4.0, Some(0.25)));
        assert!(Sample::median(Vec::new()).is_none());
    }
}
