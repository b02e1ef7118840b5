use indicatif::ProgressBar;
use leasehold_core::client::Store;
use leasehold_core::worker::Worker;

use super::Name;
use super::rounds::{enqueue, since};
use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, Row};
use crate::sample::{Sample, Watch};
use crate::stores::{Opened, Stores};
use crate::target::expect;

/// In what batches the jobs are enqueued, which is not measured.
const FILLING: usize = 1_000;

/// Lets a worker run jobs that do nothing until there are none left: leases, batching, logs and shutdown
/// included, from the start of the worker to its end.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    let name = Name::Worker;
    for kind in options.backends() {
        let mut samples = Vec::new();
        for round in 1..=options.rounds() {
            progress.set_message(format!("worker, {kind}, round {round}"));
            let opened = stores.open(kind).await?;
            samples.push(one_round(&opened, options.jobs(FILLING)).await?);
            opened.close().await?;
        }
        if let Some(sample) = Sample::median(samples) {
            let (case, limit, naive) = (name.to_string(), None, None);
            report.rows.push(Row { name, case, kind, claimers: 1, batch: 0, sample, limit, naive });
        }
    }
    Ok(())
}

async fn one_round(opened: &Opened, jobs: usize) -> Result<Sample, Trouble> {
    enqueue(&opened.target(), jobs, 1, FILLING).await?;
    let backend = opened.backend().ok_or("only a backend has workers")?;
    let before = backend.trips().await?;
    let store = Store::new(backend.clone());
    let worker = Worker::builder(&store).handle("bench", || async {}).until_idle().build()?;
    let mut watch = Watch::default();
    let summary = watch.time(worker.run()).await;
    expect("run", summary.succeeded == jobs as u64)?;
    Ok(Sample::new(jobs, watch.elapsed(), since(before, backend.trips().await?)))
}
