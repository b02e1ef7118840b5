use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use leasehold::backend::{Filter, Order, QueueCounts};
use leasehold::{QueueName, State, Store, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use super::Context;
use crate::failure::Failure;
use crate::output::{Format, say};
use crate::words::{span, thousands};

/// How many looks a sparkline shows.
const HISTORY: usize = 20;

/// Shows rates, waits, run times and how long the queues take to drain.
///
/// Counts are compared over a span of time; waits and run times are those of the newest jobs of each queue that have ended.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold stats\n  leasehold stats --watch --over 5s\n  leasehold -o jsonl stats --watch | tee stats.jsonl"
)]
pub(crate) struct Stats {
    /// Only this queue
    #[arg(short, long)]
    queue: Option<QueueName>,
    /// Over how long rates are measured
    #[arg(long, value_name = "TIME", default_value = "2s")]
    over: humantime::Duration,
    /// Look again and again
    #[arg(short, long)]
    watch: bool,
    /// How many ended jobs of each queue are looked at
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    sample: usize,
}

/// What is measured of one queue.
#[derive(Debug, Serialize)]
struct Measured {
    queue: QueueName,
    queued: u64,
    running: u64,
    /// Jobs taken in per second.
    enqueued_per_s: f64,
    /// Jobs that left the waiting and running ones per second.
    done_per_s: f64,
    /// For how long the oldest due job has waited, in seconds.
    oldest_s: Option<f64>,
    /// How long it takes at this rate until nothing waits, in seconds; none if it does not get less.
    drained_in_s: Option<f64>,
    wait_s: Option<Percentiles>,
    run_s: Option<Percentiles>,
    #[serde(skip)]
    history: Vec<f64>,
}

/// Of some spans, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

type Seen = (Instant, BTreeMap<QueueName, QueueCounts>);

pub(crate) async fn run(command: Stats, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    let mut history: BTreeMap<QueueName, VecDeque<f64>> = BTreeMap::new();
    let mut before = look(&store, command.queue.as_ref()).await?;
    loop {
        tokio::time::sleep(command.over.into()).await;
        let after = look(&store, command.queue.as_ref()).await?;
        let (now, mut all) = (store.now().await?, Vec::new());
        for (queue, counts) in &after.1 {
            let mut measured = measure(&before, &after, counts);
            (measured.oldest_s, measured.wait_s, measured.run_s) =
                sample(&store, counts, now, command.sample).await?;
            let rates = history.entry(queue.clone()).or_default();
            rates.push_back(measured.done_per_s);
            if rates.len() > HISTORY {
                rates.pop_front();
            }
            measured.history = rates.iter().copied().collect();
            all.push(measured);
        }
        print(context, &all, command.watch)?;
        if !command.watch {
            return Ok(());
        }
        before = after;
    }
}

async fn look(store: &Store, only: Option<&QueueName>) -> Result<Seen, Failure> {
    let counts = store.counts().await?;
    let wanted = counts.into_iter().filter(|counts| only.is_none_or(|only| only.means(&counts.queue)));
    Ok((Instant::now(), wanted.map(|counts| (counts.queue.clone(), counts)).collect()))
}

fn measure(before: &Seen, after: &Seen, counts: &QueueCounts) -> Measured {
    let seconds = after.0.duration_since(before.0).as_secs_f64().max(0.001);
    let empty = QueueCounts::empty(counts.queue.clone());
    let was = before.1.get(&counts.queue).unwrap_or(&empty);
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    let enqueued_per_s = rate(counts.enqueued, was.enqueued);
    let done_per_s = rate(counts.done(), was.done());
    let (queued, shrinks) = (counts.of(State::Queued), done_per_s - enqueued_per_s);
    let drained_in_s = match queued {
        0 => Some(0.0),
        queued => (shrinks > 0.0).then(|| queued as f64 / shrinks),
    };
    Measured {
        queue: counts.queue.clone(),
        queued,
        running: counts.of(State::Running),
        enqueued_per_s,
        done_per_s,
        oldest_s: None,
        drained_in_s,
        wait_s: None,
        run_s: None,
        history: Vec::new(),
    }
}

type Spans = (Option<f64>, Option<Percentiles>, Option<Percentiles>);

/// How long the oldest due job has waited, and how long the newest that ended waited and ran.
async fn sample(store: &Store, counts: &QueueCounts, now: Timestamp, most: usize) -> Result<Spans, Failure> {
    let mut filter = Filter::default();
    filter.queues = Some(vec![counts.queue.clone()]);
    filter.states = Some(vec![State::Succeeded, State::Failed]);
    let jobs = store.list_all(filter, Order::NewestFirst).take(most);
    let jobs: Vec<leasehold::JobRecord> = jobs.try_collect().await?;
    let between = |from: Timestamp, to: Option<Timestamp>| to.map(|to| to.since(from).as_secs_f64());
    // A retry's due time is that of its latest attempt.
    let waits = jobs.iter().filter_map(|job| between(job.due, job.started_at)).collect();
    let runs = jobs.iter().filter_map(|job| between(job.started_at?, job.finished_at)).collect();
    let oldest = counts.oldest_due.map(|due| now.since(due).as_secs_f64());
    Ok((oldest, percentiles(waits), percentiles(runs)))
}

fn percentiles(mut spans: Vec<f64>) -> Option<Percentiles> {
    spans.sort_by(f64::total_cmp);
    let last = spans.len().checked_sub(1)?;
    let at = |percent: usize| spans[(last * percent).div_ceil(100).min(last)];
    Some(Percentiles { p50: at(50), p95: at(95), p99: at(99) })
}

fn print(context: &Context, all: &[Measured], watch: bool) -> Result<(), Failure> {
    if watch && context.output.format == Format::Table {
        say("");
    }
    let columns = [
        "queue",
        "queued",
        "running",
        "in/s",
        "done/s",
        "oldest",
        "drained in",
        "wait p50 p95 p99",
        "run p50 p95 p99",
        "done",
    ];
    context.output.list(all, &columns, "there are no queues yet", |measured| {
        let seconds = |seconds: f64| span(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
        let some = |it: Option<f64>| it.map_or_else(String::new, seconds);
        let three = |it: Option<Percentiles>| {
            it.map_or_else(String::new, |it| [it.p50, it.p95, it.p99].map(seconds).join(" "))
        };
        vec![
            measured.queue.to_string(),
            thousands(measured.queued),
            thousands(measured.running),
            format!("{:.1}", measured.enqueued_per_s),
            format!("{:.1}", measured.done_per_s),
            some(measured.oldest_s),
            measured.drained_in_s.map_or_else(|| "it grows".to_owned(), seconds),
            three(measured.wait_s),
            three(measured.run_s),
            sparkline(&measured.history),
        ]
    })
}

/// Numbers as a line of blocks, the highest as the tallest.
pub(crate) fn sparkline(numbers: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().fold(0.0, f64::max);
    let block = |number: &f64| match most > 0.0 {
        true => BLOCKS[((number / most * 7.0).round() as usize).min(7)],
        false => BLOCKS[0],
    };
    numbers.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_spans() {
        assert_eq!(percentiles(Vec::new()), None);
        let spans = (1..=100).rev().map(f64::from).collect();
        let Percentiles { p50, p95, p99 } = percentiles(spans).unwrap();
        assert_eq!((p50, p95, p99), (51.0, 96.0, 100.0));
    }

    #[test]
    fn the_highest_is_the_tallest() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0]), "▁▅█");
        assert_eq!(sparkline(&[0.0, 0.0]), "▁▁");
    }
}
