use indicatif::ProgressBar;

use super::Name;
use super::rounds::{drain, enqueue};
use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, Row, thousands};
use crate::sample::{Sample, Watch};
use crate::stores::{Kind, Opened, Stores};
use crate::target::{batches, expect};
use crate::work::{Meter, Work, between};

/// How many jobs are claimed and settled in each case.
const JOBS: usize = 10_000;
/// How many jobs wait in the case that the others are compared with.
const FEW: usize = 1_000;
/// How a store is filled, which is not measured.
const FILLERS: usize = 4;
const FILLING: usize = 1_000;

/// Claims and settles the same number of jobs while ever more others wait, and once while as many have ended.
/// A store that keeps its promise of a claim that walks nothing it does not take shows ratios near 1.
///
/// What MongoDB's numbers are compared with is left out: it claims nothing, or one by one.
/// Each case has a store of its own, so that what was claimed in one does not stand in the way of another.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    let claims = |kind: &Kind| !matches!(kind, Kind::RawMongo | Kind::NaiveMongo | Kind::NaiveRedis);
    for kind in options.stores().into_iter().filter(claims) {
        let cases = std::iter::successors(Some(FEW), |n| Some(n * 10)).take_while(|n| *n <= options.most());
        for waiting in cases {
            let opened = stores.open(kind).await?;
            let target = opened.target();
            let case = format!("{} wait", thousands(waiting as u64));
            progress.set_message(format!("flat, {kind}, {case}"));
            enqueue(&target, waiting, FILLERS, FILLING).await?;
            measure(options, &opened, &case, report).await?;
            if waiting * 10 > options.most() && waiting > FEW {
                let case = format!("{} ended", thousands(waiting as u64));
                progress.set_message(format!("flat, {kind}, {case}"));
                drain(&target, waiting, FILLERS, FILLING).await?;
                enqueue(&target, FEW, FILLERS, FILLING).await?;
                measure(options, &opened, &case, report).await?;
            }
            opened.close().await?;
        }
    }
    Ok(())
}

async fn measure(options: &Options, opened: &Opened, case: &str, report: &mut Report) -> Result<(), Trouble> {
    let (kind, meter) = (opened.kind(), opened.meter().await?);
    let mut samples: Vec<[Vec<Sample>; 2]> = options.batches().map(|_| Default::default()).collect();
    for _ in 0..options.rounds() {
        for (batch, samples) in options.batches().zip(&mut samples) {
            let taken = round(opened, &meter, batch.min(FEW)).await?;
            samples.iter_mut().zip(taken).for_each(|(part, sample)| part.push(sample));
        }
    }
    for (batch, samples) in options.batches().zip(samples) {
        for (part, samples) in ["claim", "settle"].into_iter().zip(samples) {
            let Some(sample) = Sample::median(samples) else { continue };
            let case = format!("flat {part}, {case}");
            let first = |row: &&Row| {
                row.name == Name::Flat
                    && row.kind == kind
                    && row.batch == batch
                    && row.case.starts_with(&format!("flat {part}, "))
            };
            let limit = Some(report.rows.iter().find(first).map_or(sample, |row| row.sample));
            let (name, naive) = (Name::Flat, None);
            report.rows.push(Row { name, case, kind, claimers: 1, batch, sample, limit, naive });
        }
    }
    Ok(())
}

/// The time of the claims and that of the settlements. Each batch that is taken is made up for, unmeasured, so that
/// as many wait at the end as at the start.
async fn round(opened: &Opened, meter: &Meter, batch: usize) -> Result<[Sample; 2], Trouble> {
    let (target, jobs) = (opened.target(), JOBS.min(batch * 50));
    let mut done = [meter.read().await?.map(|_| Work::default()); 2];
    let (mut claims, mut settlements) = (Watch::default(), Watch::default());
    for more in batches(jobs, batch)? {
        let start = meter.read().await?;
        let held = claims.time(target.claim(batch)).await?;
        let middle = meter.read().await?;
        expect("claimed", held.len() == batch)?;
        settlements.time(target.settle(held)).await?;
        let parts = [between(start, middle), between(middle, meter.read().await?)];
        done.iter_mut().zip(parts).for_each(|(sum, part)| {
            if let Some((sum, part)) = sum.as_mut().zip(part) {
                *sum += part;
            }
        });
        target.enqueue(more).await?;
    }
    let [claimed, settled] = done;
    let sample = |watch: Watch, work| Sample::new(jobs, watch.elapsed(), None).with(work);
    Ok([sample(claims, claimed), sample(settlements, settled)])
}
