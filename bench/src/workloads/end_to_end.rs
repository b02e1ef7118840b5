use super::{claim_settle, enqueue};
use crate::Trouble;
use crate::sample::Sample;
use crate::target::Target;

/// Enqueues all, then claims and settles all: what one job costs from its birth to its end.
pub(crate) async fn round(target: &mut dyn Target, jobs: usize) -> Result<Sample, Trouble> {
    let enqueued = enqueue::round(target, jobs).await?;
    let drained = claim_settle::drain(target, jobs).await?;
    let calls = enqueued.calls.zip(drained.calls).map(|(enqueue, drain)| enqueue + drain);
    Ok(Sample::new(jobs, enqueued.elapsed + drained.elapsed, calls))
}
