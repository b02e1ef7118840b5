use indicatif::ProgressBar;
use leasehold_core::client::Store;
use leasehold_core::worker::Worker;

use super::Name;
use crate::Trouble;
use crate::counted::Counted;
use crate::options::Options;
use crate::report::Report;
use crate::sample::{Sample, Watch};
use crate::target::{Target, batches, expect};

/// Lets a worker run jobs that do nothing until there are none left: leases, batching, logs and shutdown
/// included, from the start of the worker to its end.
pub(crate) async fn run(
    options: &Options,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    for store in options.stores() {
        let mut samples = Vec::new();
        for round in 1..=options.rounds() {
            progress.set_message(format!("worker, {store}, round {round}"));
            let opened = store.open(&options.folder).await?;
            if let Some(backend) = opened.backend() {
                samples.push(one_round(backend.clone(), options.jobs()).await?);
            }
        }
        if let Some(sample) = Sample::median(samples) {
            report.add(&Name::Worker.to_string(), &store.to_string(), sample, None);
        }
    }
    Ok(())
}

async fn one_round(mut backend: Counted, jobs: usize) -> Result<Sample, Trouble> {
    for batch in batches(jobs)? {
        Target::enqueue(&mut backend, batch).await?;
    }
    let before = backend.calls();
    let store = Store::new(backend.clone());
    let worker = Worker::builder(&store).handle("bench", || async {}).until_idle().build()?;
    let mut watch = Watch::default();
    let summary = watch.time(worker.run()).await;
    expect("run", summary.succeeded == jobs as u64)?;
    Ok(Sample::new(jobs, watch.elapsed(), Some(backend.calls() - before)))
}
