use crate::Trouble;
use crate::sample::{Sample, Watch};
use crate::target::{Target, batches};

/// Enqueues jobs in batches. Making them is not measured.
pub(crate) async fn round(target: &mut dyn Target, jobs: usize) -> Result<Sample, Trouble> {
    let batches = batches(jobs)?;
    let before = target.calls();
    let mut watch = Watch::default();
    for batch in batches {
        watch.time(target.enqueue(batch)).await?;
    }
    let calls = target.calls().zip(before).map(|(after, before)| after - before);
    Ok(Sample::new(jobs, watch.elapsed(), calls))
}
