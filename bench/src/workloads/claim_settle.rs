use crate::Trouble;
use crate::sample::{Sample, Watch};
use crate::target::{Target, batches, expect};

/// Claims and settles, batch by batch, jobs that were enqueued before.
pub(crate) async fn round(target: &mut dyn Target, jobs: usize) -> Result<Sample, Trouble> {
    for batch in batches(jobs)? {
        target.enqueue(batch).await?;
    }
    drain(target, jobs).await
}

/// Claims and settles all there are, which are `jobs`.
pub(crate) async fn drain(target: &mut dyn Target, jobs: usize) -> Result<Sample, Trouble> {
    let before = target.calls();
    let mut watch = Watch::default();
    let mut done = 0;
    while done < jobs {
        let held = watch.time(target.claim()).await?;
        expect("claimed", !held.is_empty())?;
        done += held.len();
        watch.time(target.settle(held)).await?;
    }
    let calls = target.calls().zip(before).map(|(after, before)| after - before);
    Ok(Sample::new(jobs, watch.elapsed(), calls))
}
