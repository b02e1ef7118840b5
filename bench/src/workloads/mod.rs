mod claim_settle;
mod end_to_end;
mod enqueue;
pub(crate) mod flat;
pub(crate) mod worker;

use indicatif::ProgressBar;

use crate::Trouble;
use crate::options::Options;
use crate::report::Report;
use crate::sample::Sample;
use crate::target::Target;

/// The named workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, strum::Display, strum::VariantArray)]
pub(crate) enum Name {
    /// Enqueues in batches.
    #[strum(to_string = "enqueue")]
    Enqueue,
    /// Claims and settles in batches.
    #[strum(to_string = "claim+settle")]
    ClaimSettle,
    /// Both: enqueues all, then claims and settles all.
    #[strum(to_string = "end to end")]
    EndToEnd,
    /// Claims and settles a few jobs beside ever more that wait or have ended.
    #[strum(to_string = "flat")]
    Flat,
    /// A worker with a handler that does nothing.
    #[strum(to_string = "worker")]
    Worker,
}

/// Measures a workload that needs no more than a target. Stores take turns, so that a machine which slows down
/// slows all of them down.
pub(crate) async fn run_in_rounds(
    name: Name,
    options: &Options,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    let stores = options.stores();
    let mut samples = vec![Vec::new(); stores.len()];
    for round in 1..=options.rounds() {
        for (store, samples) in stores.iter().zip(&mut samples) {
            progress.set_message(format!("{name}, {store}, round {round}"));
            let mut opened = store.open(&options.folder).await?;
            samples.push(one_round(name, opened.target(), options.jobs()).await?);
        }
    }
    let medians: Vec<Option<Sample>> = samples.into_iter().map(Sample::median).collect();
    for (store, sample) in stores.iter().zip(&medians) {
        let limit = stores.iter().position(|other| Some(*other) == store.limit()).and_then(|i| medians[i]);
        if let Some(sample) = sample {
            report.add(&name.to_string(), &store.to_string(), *sample, limit);
        }
    }
    Ok(())
}

async fn one_round(name: Name, target: &mut dyn Target, jobs: usize) -> Result<Sample, Trouble> {
    match name {
        Name::Enqueue => enqueue::round(target, jobs).await,
        Name::ClaimSettle => claim_settle::round(target, jobs).await,
        _ => end_to_end::round(target, jobs).await,
    }
}
