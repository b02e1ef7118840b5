use indicatif::ProgressBar;

use super::claim_settle::drain;
use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, thousands};
use crate::sample::{Sample, Watch};
use crate::target::{BATCH, Target, batches, expect};

/// How many jobs are claimed and settled in each case.
const JOBS: usize = 10_000;
/// How many jobs wait in the case that the others are compared with.
const FEW: usize = 1_000;

/// Claims and settles the same number of jobs while ever more others wait, and once while as many have ended.
/// A store that keeps its promise of a claim that walks nothing it does not take shows ratios near 1.
pub(crate) async fn run(
    options: &Options,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    for store in options.stores() {
        let mut opened = store.open(&options.folder).await?;
        let target = opened.target();
        let mut waiting = 0;
        let mut first = None;
        let mut add = |case: String, sample: Sample| {
            let first = *first.get_or_insert(sample);
            report.add(&format!("flat, {case}"), &store.to_string(), sample, Some(first));
        };
        for cases in std::iter::successors(Some(FEW), |n| Some(n * 10)).take_while(|n| *n <= options.most()) {
            let case = format!("{} wait", thousands(cases as u64));
            progress.set_message(format!("flat, {store}, {case}"));
            for batch in batches(cases - waiting)? {
                target.enqueue(batch).await?;
            }
            waiting = cases;
            add(case, median(target, options).await?);
        }
        let case = format!("{} ended", thousands(options.most() as u64));
        progress.set_message(format!("flat, {store}, {case}"));
        drain(target, waiting - FEW).await?;
        add(case, median(target, options).await?);
    }
    Ok(())
}

async fn median(target: &mut dyn Target, options: &Options) -> Result<Sample, Trouble> {
    let mut samples = Vec::new();
    for _ in 0..options.rounds() {
        samples.push(round(target).await?);
    }
    Sample::median(samples).ok_or_else(|| "there was no round".into())
}

/// Each batch that is taken is made up for, unmeasured, so that as many wait at the end as at the start.
async fn round(target: &mut dyn Target) -> Result<Sample, Trouble> {
    let batches = batches(JOBS)?;
    let (before, enqueues) = (target.calls(), batches.len() as u64);
    let mut watch = Watch::default();
    for batch in batches {
        let held = watch.time(target.claim()).await?;
        expect("claimed", held.len() == BATCH)?;
        watch.time(target.settle(held)).await?;
        target.enqueue(batch).await?;
    }
    let calls = target.calls().zip(before).map(|(after, before)| after - before - enqueues);
    Ok(Sample::new(JOBS, watch.elapsed(), calls))
}
