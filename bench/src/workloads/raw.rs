use indicatif::ProgressBar;
use leasehold_core::client::Store;
use leasehold_core::worker::{RawOptions, Worker};
use leasehold_core::{NewJob, Payload, QueueName};

use super::Name;
use super::rounds::since;
use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, Row};
use crate::sample::{Sample, Watch};
use crate::stores::{Opened, Stores};
use crate::target::expect;

/// How many jobs are enqueued in one call.
const FILLING: usize = 1_000;

/// What of it is measured.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Each payload is a job.
    Jobs,
    /// The payloads are packed into records of a raw queue.
    List,
}

/// Adds payloads by the client and has a worker run them with a handler that does nothing, as jobs and as a list of a raw
/// queue: all of it is measured, from the first call to the worker's end.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    let name = Name::Raw;
    for kind in options.backends() {
        let (mut jobs, mut list) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds() {
            for (way, samples) in [(Way::Jobs, &mut jobs), (Way::List, &mut list)] {
                progress.set_message(format!("raw, {kind}, {way:?}, round {round}"));
                let opened = stores.open(kind).await?;
                samples.push(one_round(&opened, options.jobs(FILLING), way).await?);
                opened.close().await?;
            }
        }
        let limit = Sample::median(jobs);
        for (case, sample, limit) in
            [("raw, as jobs", limit, None), ("raw, list", Sample::median(list), limit)]
        {
            let Some(sample) = sample else { continue };
            let case = case.to_owned();
            report.rows.push(Row { name, case, kind, claimers: 1, batch: 0, sample, limit, naive: None });
        }
    }
    Ok(())
}

async fn one_round(opened: &Opened, count: usize, way: Way) -> Result<Sample, Trouble> {
    let backend = opened.backend().ok_or("only a backend has workers")?;
    let store = Store::new(backend.clone());
    let queue = store.queue(QueueName::default())?;
    let raw = queue.raw("bench")?;
    let payloads = (0..count).map(|n| Payload::from(format!("{{\"n\":{n}}}")));
    let before = backend.trips().await?;
    let worker = Worker::builder(&store).handle_raw("bench", RawOptions::default(), || async {});
    let worker = worker.until_idle().build()?;
    let mut watch = Watch::default();
    let run = async {
        match way {
            Way::Jobs => {
                let kind = leasehold_core::Kind::new("bench")?;
                queue.enqueue_all(payloads.map(|payload| NewJob::new(kind.clone(), payload))).await?;
            }
            Way::List => drop(raw.list().push_many(payloads).await?),
        }
        Ok::<_, Trouble>(worker.run().await)
    };
    let summary = watch.time(run).await?;
    let records = match way {
        Way::Jobs => count,
        Way::List => count.div_ceil(1_000),
    };
    expect("run", summary.succeeded == records as u64)?;
    Ok(Sample::new(count, watch.elapsed(), since(before, backend.trips().await?)))
}
