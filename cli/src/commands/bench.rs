use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use indicatif::ProgressBar;
use leasehold::backend::{Action, Claim, Enqueue, Filter, Settle, Settlement, Verdict};
use leasehold::{Deadline, Kind, NewJob, Payload, QueueName, Store, WorkerId};
use serde::Serialize;
use tokio::time::Instant;

use super::Context;
use crate::failure::Failure;
use crate::output::{say, style};
use crate::words::thousands;

/// Where it works; one at a time.
const QUEUE: &str = "leasehold-bench";
/// How long a claim lasts, which is longer than this takes.
const LEASE: Duration = Duration::from_mins(10);

/// Measures the store: jobs per second, milliseconds per call, calls per job, and what limits them.
///
/// It works in the queue `leasehold-bench`, whose jobs it deletes before and after; one such measurement at a time. Ratios between
/// two runs on one machine say something; the numbers of a shared machine by themselves say little.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold bench\n  leasehold bench --jobs 50000 --batch 500 --side-by-side 4"
)]
pub(crate) struct Bench {
    /// How many jobs
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    jobs: usize,
    /// How many jobs one call takes
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    batch: usize,
    /// How many callers side by side
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    side_by_side: usize,
    /// Bytes of a payload
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    payload: usize,
}

/// One part of the work.
#[derive(Debug, Serialize)]
struct Measured {
    part: &'static str,
    jobs: u64,
    jobs_per_s: f64,
    calls: u64,
    /// Calls to the store for each job.
    calls_per_job: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Which part of the time of all callers was spent in calls.
    in_calls: f64,
}

/// What the callers of one part note.
#[derive(Debug, Default)]
struct Watch {
    jobs: AtomicU64,
    micros: std::sync::Mutex<Vec<u64>>,
}

impl Watch {
    async fn call<T>(&self, call: impl Future<Output = leasehold::Result<T>>) -> leasehold::Result<T> {
        let begun = Instant::now();
        let done = call.await?;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.micros.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(micros);
        Ok(done)
    }

    fn told(&self, part: &'static str, took: Duration, callers: usize) -> Measured {
        let mut micros =
            std::mem::take(&mut *self.micros.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        micros.sort_unstable();
        let at =
            |percent: usize| micros.get((micros.len() * percent / 100).min(micros.len().saturating_sub(1)));
        let ms = |percent| at(percent).map_or(0.0, |micros| *micros as f64 / 1_000.0);
        let (jobs, seconds) = (self.jobs.load(Ordering::Relaxed), took.as_secs_f64().max(1e-6));
        let calls = micros.len() as u64;
        Measured {
            part,
            jobs,
            jobs_per_s: jobs as f64 / seconds,
            calls,
            calls_per_job: calls as f64 / jobs.max(1) as f64,
            p50_ms: ms(50),
            p99_ms: ms(99),
            in_calls: micros.iter().sum::<u64>() as f64 / 1e6 / seconds / callers as f64,
        }
    }
}

pub(crate) async fn run(command: Bench, context: &Context) -> Result<(), Failure> {
    let store = context.new_store().await?;
    let most = store.limits().batch;
    if command.batch == 0 || command.batch > most || command.side_by_side == 0 {
        return Err(Failure::usage(format!("a batch is 1 to {most} jobs, and there is one caller at least")));
    }
    let queue = QueueName::new(QUEUE)?;
    clean(&store, &queue).await?;
    let bar = ProgressBar::new(command.jobs as u64 * 3);
    bar.set_style(style("{bar:30} {percent}% {msg}"));
    let measured = measure(&store, &command, &queue, &bar).await;
    bar.finish_and_clear();
    // Whatever became of it, nothing is left.
    clean(&store, &queue).await?;
    let measured = measured?;
    let columns = ["part", "jobs/s", "calls/job", "p50", "p99", "in calls"];
    context.output.list(&measured, &columns, "nothing was measured", |it| {
        vec![
            it.part.to_owned(),
            thousands(it.jobs_per_s as u64),
            format!("{:.4}", it.calls_per_job),
            format!("{:.1} ms", it.p50_ms),
            format!("{:.1} ms", it.p99_ms),
            format!("{:.0}%", it.in_calls * 100.0),
        ]
    })?;
    say(&verdict(&measured, &command));
    Ok(())
}

async fn measure(
    store: &Store,
    command: &Bench,
    queue: &QueueName,
    bar: &ProgressBar,
) -> Result<[Measured; 3], Failure> {
    bar.set_message("enqueue");
    let enqueued = enqueue(store, command, queue, bar).await?;
    bar.set_message("claim and settle");
    let [claimed, settled] = work(store, command, queue, bar).await?;
    Ok([enqueued, claimed, settled])
}

async fn enqueue(
    store: &Store,
    command: &Bench,
    queue: &QueueName,
    bar: &ProgressBar,
) -> Result<Measured, Failure> {
    let watch = Watch::default();
    let payload = Payload::from("x".repeat(command.payload));
    let kind = Kind::new("bench")?;
    let each = command.jobs.div_ceil(command.side_by_side);
    let begun = Instant::now();
    let callers = (0..command.side_by_side).map(|caller| {
        let (watch, payload, kind) = (&watch, &payload, &kind);
        async move {
            let mut left = each.min(command.jobs.saturating_sub(caller * each));
            while left > 0 {
                let count = left.min(command.batch);
                let job = || NewJob::new(kind.clone(), payload.clone()).queue(queue.clone());
                let jobs = std::iter::repeat_with(job).take(count).collect();
                watch.call(store.backend().enqueue(store.deadline(), Enqueue { jobs })).await?;
                watch.jobs.fetch_add(count as u64, Ordering::Relaxed);
                bar.inc(count as u64);
                left -= count;
            }
            Ok::<(), leasehold::Error>(())
        }
    });
    join_all(callers).await.into_iter().collect::<leasehold::Result<()>>()?;
    Ok(watch.told("enqueue", begun.elapsed(), command.side_by_side))
}

async fn work(
    store: &Store,
    command: &Bench,
    queue: &QueueName,
    bar: &ProgressBar,
) -> Result<[Measured; 2], Failure> {
    let (claims, settles) = (Watch::default(), Watch::default());
    let begun = Instant::now();
    let callers = (0..command.side_by_side).map(|_| {
        let (claims, settles, worker) = (&claims, &settles, WorkerId::generate());
        async move {
            loop {
                let claim = Claim::new(worker, [queue.clone()], command.batch, LEASE);
                let held = claims.call(store.backend().claim(store.deadline(), claim)).await?.jobs;
                if held.is_empty() {
                    return Ok::<(), leasehold::Error>(());
                }
                let count = held.len() as u64;
                claims.jobs.fetch_add(count, Ordering::Relaxed);
                bar.inc(count);
                let settlement = |held: leasehold::LeasedJob| Settlement {
                    job: held.job.id,
                    token: held.token,
                    verdict: Verdict::Succeed { result: None },
                    failure: None,
                };
                let request = Settle { settlements: held.into_iter().map(settlement).collect() };
                settles.call(store.backend().settle(Deadline::after(LEASE), request)).await?;
                settles.jobs.fetch_add(count, Ordering::Relaxed);
                bar.inc(count);
            }
        }
    });
    join_all(callers).await.into_iter().collect::<leasehold::Result<()>>()?;
    let took = begun.elapsed();
    Ok([claims.told("claim", took, command.side_by_side), settles.told("settle", took, command.side_by_side)])
}

async fn clean(store: &Store, queue: &QueueName) -> Result<(), Failure> {
    let mut filter = Filter::default();
    filter.queues = Some(vec![queue.clone()]);
    let mut bulk = store.amend_all(filter, Action::Delete).await?;
    while bulk.next().await?.is_some() {}
    Ok(())
}

/// What limits it, in a sentence.
fn verdict(measured: &[Measured; 3], command: &Bench) -> String {
    let [enqueue, claim, settle] = measured;
    // Claims and settlements share their time, so it is counted once.
    let seconds = |part: &Measured| 1.0 / part.jobs_per_s.max(1e-9);
    let end_to_end = 1.0 / (seconds(enqueue) + seconds(claim));
    let in_calls = claim.in_calls + settle.in_calls;
    let what = match in_calls > 0.7 {
        true => {
            "the store: callers wait for its answers; larger batches and more callers help until it is busy"
        }
        false => "this program: it is busy between its calls; more processes help",
    };
    format!(
        "{} jobs/s from enqueue to success in batches of {}, limited by {what}",
        thousands(end_to_end as u64),
        command.batch
    )
}
