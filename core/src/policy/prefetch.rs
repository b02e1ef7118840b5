use std::time::Duration;

/// How far ahead of its free slots a worker claims, measured in time: jobs that would not begin within this
/// are left to other workers.
const HORIZON: Duration = Duration::from_millis(100);

/// How many jobs to hold beyond the `concurrency` that run, given how long a run takes on average and the
/// most that may be held. Unknown run times hold none, so that a first long job strands nothing behind it.
pub fn prefetch(concurrency: usize, mean_run: Option<Duration>, most: usize) -> usize {
    let Some(mean) = mean_run else { return 0 };
    let begun = HORIZON.as_nanos() / mean.as_nanos().max(1);
    let ahead = begun.saturating_mul(concurrency as u128);
    usize::try_from(ahead).unwrap_or(usize::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_begins_within_the_horizon() {
        assert_eq!(prefetch(8, None, 1_000), 0);
        assert_eq!(prefetch(8, Some(Duration::from_millis(50)), 1_000), 16);
        assert_eq!(prefetch(8, Some(Duration::from_secs(1)), 1_000), 0);
        assert_eq!(prefetch(8, Some(Duration::ZERO), 1_000), 1_000);
    }
}
