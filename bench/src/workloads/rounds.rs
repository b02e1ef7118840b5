//! Enqueue, claim and settle, and both: one round of all enqueued and all ended gives all three numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Name;
use crate::Trouble;
use crate::child::Child;
use crate::options::Options;
use crate::report::{Report, Row};
use crate::sample::Sample;
use crate::stores::{Kind, Opened, Stores};
use crate::target::{Target, batches, expect};
use crate::work::between;

/// The numbers that a round gives.
const PARTS: [Name; 3] = [Name::Enqueue, Name::ClaimSettle, Name::EndToEnd];

/// After so many claims in a row that gave nothing, what is left is lost.
const HOPELESS: usize = 10_000;

/// Measures with each number of claimers and each size of batches. Stores and sizes take turns, so that a machine
/// which slows down slows all of them down.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    for claimers in options.claimers() {
        let mut samples: BTreeMap<(Kind, usize), [Vec<Sample>; 3]> = BTreeMap::new();
        for round in 1..=options.rounds() {
            for (i, batch) in options.batches().enumerate() {
                for kind in options.stores() {
                    let batch = if kind.batches() { batch } else { 1 };
                    if i > 0 && !kind.batches() {
                        continue;
                    }
                    progress.set_message(format!(
                        "{kind}, {claimers} claimers, batches of {batch}, round {round}"
                    ));
                    let opened = stores.open(kind).await?;
                    let taken = one_round(options, &opened, claimers, batch).await?;
                    opened.close().await?;
                    let parts = samples.entry((kind, batch)).or_default();
                    parts.iter_mut().zip(taken).for_each(|(part, sample)| part.push(sample));
                }
            }
        }
        add(options, claimers, &samples, report);
    }
    Ok(())
}

async fn one_round(
    options: &Options,
    opened: &Opened,
    claimers: usize,
    batch: usize,
) -> Result<[Sample; 3], Trouble> {
    let (target, jobs, meter) = (opened.target(), options.jobs(batch), opened.meter().await?);
    let start = meter.read().await?;
    let enqueued = enqueue(&target, jobs, claimers, batch).await?;
    let middle = meter.read().await?;
    let drained = match opened.place() {
        Some(_) if options.processes > 1 => drain_apart(options, opened, jobs, claimers, batch).await?,
        _ => drain(&target, jobs, claimers, batch).await?,
    };
    let enqueued = enqueued.with(between(start, middle));
    let drained = drained.with(between(middle, meter.read().await?));
    Ok([enqueued, drained, enqueued.then(drained)])
}

fn add(
    options: &Options,
    claimers: usize,
    samples: &BTreeMap<(Kind, usize), [Vec<Sample>; 3]>,
    report: &mut Report,
) {
    for (part, name) in PARTS.into_iter().enumerate().filter(|(_, name)| options.wants(*name)) {
        let median = |kind: Kind, batch: usize| Sample::median(samples.get(&(kind, batch))?[part].clone());
        for (kind, batch) in samples.keys().copied() {
            let Some(sample) = median(kind, batch) else { continue };
            let limit = kind.limit().and_then(|limit| median(limit, batch));
            let naive = match kind {
                Kind::Mongo => median(Kind::NaiveMongo, 1),
                Kind::Redis => median(Kind::NaiveRedis, batch),
                _ => None,
            };
            let case = name.to_string();
            report.rows.push(Row { name, case, kind, claimers, batch, sample, limit, naive });
        }
    }
}

/// Enqueues so many jobs, by so many at the same time. Making them is not measured.
pub(crate) async fn enqueue(
    target: &Arc<dyn Target>,
    jobs: usize,
    producers: usize,
    batch: usize,
) -> Result<Sample, Trouble> {
    let mut shares: Vec<Vec<_>> = (0..producers).map(|_| Vec::new()).collect();
    for (i, batch) in batches(jobs, batch)?.into_iter().enumerate() {
        shares[i % producers].push(batch);
    }
    let before = target.trips().await?;
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for share in shares {
        let target = target.clone();
        tasks.spawn(async move {
            for batch in share {
                target.enqueue(batch).await?;
            }
            Ok::<(), Trouble>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let elapsed = begin.elapsed();
    Ok(Sample::new(jobs, elapsed, since(before, target.trips().await?)))
}

/// Claims and settles all there are, which are `jobs`, by so many at the same time.
pub(crate) async fn drain(
    target: &Arc<dyn Target>,
    jobs: usize,
    claimers: usize,
    batch: usize,
) -> Result<Sample, Trouble> {
    let before = target.trips().await?;
    let begin = Instant::now();
    let settled = claim_all(target, Some(jobs), claimers, batch).await?;
    let elapsed = begin.elapsed();
    expect("claimed once", settled == jobs)?;
    Ok(Sample::new(jobs, elapsed, since(before, target.trips().await?)))
}

/// The same, by claimers spread over several processes.
async fn drain_apart(
    options: &Options,
    opened: &Opened,
    jobs: usize,
    claimers: usize,
    batch: usize,
) -> Result<Sample, Trouble> {
    let place = opened.place().ok_or("this store is of one process")?;
    let count = (options.processes as usize).min(claimers);
    let mut processes = Vec::new();
    for i in 0..count {
        let claimers = claimers / count + usize::from(i < claimers % count);
        processes.push(Child::Drain { place: place.clone(), claimers, batch }.start().await?);
    }
    let target = opened.target();
    let before = target.trips().await?;
    let begin = Instant::now();
    for process in &mut processes {
        process.go().await?;
    }
    let mut settled = 0;
    for process in &mut processes {
        settled += process.line().await?.parse::<usize>()?;
    }
    let elapsed = begin.elapsed();
    expect("claimed once", settled == jobs)?;
    let trips = since(before, target.trips().await?);
    for process in processes {
        process.stop().await?;
    }
    Ok(Sample::new(jobs, elapsed, trips))
}

/// Claims and settles by so many at the same time until so many are done, or until there is nothing to claim, and
/// tells how many were settled.
pub(crate) async fn claim_all(
    target: &Arc<dyn Target>,
    jobs: Option<usize>,
    claimers: usize,
    batch: usize,
) -> Result<usize, Trouble> {
    let settled = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..claimers {
        let (target, settled) = (target.clone(), settled.clone());
        tasks.spawn(async move {
            let mut empty = 0;
            let left = |jobs| settled.load(Ordering::Relaxed) < jobs;
            while empty < jobs.map_or(3, |_| HOPELESS) && jobs.is_none_or(left) {
                let held = target.claim(batch).await?;
                if held.is_empty() {
                    // Others hold what is left, or were quicker.
                    empty += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                empty = 0;
                let count = held.len();
                target.settle(held).await?;
                settled.fetch_add(count, Ordering::Relaxed);
            }
            Ok::<(), Trouble>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(settled.load(Ordering::Relaxed))
}

/// What was counted between.
pub(crate) fn since(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after.zip(before).map(|(after, before)| after - before)
}
