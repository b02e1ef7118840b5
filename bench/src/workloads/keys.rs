use std::ops::RangeFrom;

use indicatif::ProgressBar;
use leasehold_core::{LimitKey, NewJob};

use super::Name;
use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, Row, thousands};
use crate::sample::{Sample, Watch};
use crate::stores::Stores;
use crate::target::{Target, batches, expect};

/// How many keys there are in the case that the others are compared with.
const FEW: usize = 1_000;
/// And at most.
const MOST: usize = 100_000;
/// How many jobs are claimed and settled in each case, in how many at a time at most.
const JOBS: usize = 10_000;
const BATCH: usize = 500;

/// Claims and settles the same number of jobs, each with a limit key of its own, beside ever more such jobs. A store
/// whose claim looks at no key but those of the jobs that it takes shows ratios near 1.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    for kind in options.backends() {
        let mut first = None;
        let cases = std::iter::successors(Some(FEW), |n| Some(n * 10));
        for keys in cases.take_while(|n| *n <= options.most().min(MOST)) {
            let case = format!("keys, {}", thousands(keys as u64));
            progress.set_message(format!("{case}, {kind}"));
            let opened = stores.open(kind).await?;
            let (target, mut numbers) = (opened.target(), 0..);
            for jobs in batches(keys, FEW)? {
                target.enqueue(keyed(jobs, &mut numbers)?).await?;
            }
            let mut samples = Vec::new();
            for _ in 0..options.rounds() {
                samples.push(round(&*target, &mut numbers).await?);
            }
            opened.close().await?;
            let Some(sample) = Sample::median(samples) else { continue };
            let limit = Some(*first.get_or_insert(sample));
            let (name, naive) = (Name::Keys, None);
            report.rows.push(Row { name, case, kind, claimers: 1, batch: BATCH, sample, limit, naive });
        }
    }
    Ok(())
}

/// The time of claims and settlements. Each batch that is taken is made up for, unmeasured.
async fn round(target: &dyn Target, numbers: &mut RangeFrom<u64>) -> Result<Sample, Trouble> {
    let mut watch = Watch::default();
    for more in batches(JOBS, BATCH)? {
        let work = async {
            let held = target.claim(BATCH).await?;
            expect("claimed", held.len() == BATCH)?;
            target.settle(held).await
        };
        watch.time(work).await?;
        target.enqueue(keyed(more, numbers)?).await?;
    }
    Ok(Sample::new(JOBS, watch.elapsed(), None))
}

fn keyed(jobs: Vec<NewJob>, numbers: &mut RangeFrom<u64>) -> Result<Vec<NewJob>, Trouble> {
    let key = |(job, n): (NewJob, u64)| Ok(job.limit(LimitKey::new(format!("key {n}"))?, 1));
    jobs.into_iter().zip(numbers).map(key).collect()
}
