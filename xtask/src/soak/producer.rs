use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold::{Limits, NewJob, Queue, Result, Store};
use leasehold_conformance::history::{FileSink, Recorder};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::QUEUE;
use crate::SoakOptions;
use crate::run::Trouble;

/// How many enqueue at the same time, each over connections of its own.
const PRODUCERS: u64 = 2;
/// The longest a call is tried again for.
const PATIENCE: Duration = Duration::from_mins(2);

/// What was enqueued.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Produced {
    /// Jobs that were acknowledged.
    pub(super) jobs: u64,
    pub(super) calls: u64,
    /// Calls that were made again, for the same jobs, because nothing was known of one before.
    pub(super) repeated: u64,
}

/// Enqueues all jobs, evenly over the time of the run, in batches of any size.
pub(super) async fn produce(
    options: &SoakOptions,
    seed: u64,
    url: &str,
    place: &Path,
    begun: Instant,
) -> Result<Produced, Trouble> {
    let mut tasks = JoinSet::new();
    for number in 0..PRODUCERS {
        let name = format!("producer#{}", number + 1);
        let sink = Arc::new(FileSink::append(place.join(format!("{name}.jsonl")))?);
        let recorder = Recorder::wrap(leasehold::open(url).await?, &name, sink);
        let store = Store::with_limits(Arc::new(recorder), Limits::default());
        let jobs = options.jobs / PRODUCERS + u64::from(number < options.jobs % PRODUCERS);
        let producer = Producer {
            queue: store.queue(QUEUE)?,
            dice: fastrand::Rng::with_seed(seed ^ (0x100 + number)),
            produced: Produced::default(),
        };
        tasks.spawn(producer.run(jobs, begun, Duration::from_secs(options.seconds)));
    }
    let mut all = Produced::default();
    while let Some(produced) = tasks.join_next().await {
        let one = produced??;
        all.jobs += one.jobs;
        all.calls += one.calls;
        all.repeated += one.repeated;
    }
    Ok(all)
}

struct Producer {
    queue: Queue,
    dice: fastrand::Rng,
    produced: Produced,
}

impl Producer {
    async fn run(mut self, jobs: u64, begun: Instant, span: Duration) -> Result<Produced> {
        while self.produced.jobs < jobs {
            let most = jobs - self.produced.jobs;
            // A few single ones, and many of any size.
            let size = if self.dice.u8(..4) == 0 { 1 } else { self.dice.u64(1..=400) }.min(most);
            let batch = (0..size).map(|_| self.job()).collect::<Result<Vec<_>>>()?;
            self.enqueue(batch).await?;
            // A tenth of it is there from the start, so that the queue never runs dry.
            let part = (self.produced.jobs as f64 / jobs as f64 - 0.1).max(0.0);
            tokio::time::sleep_until(begun + span.mul_f64(part)).await;
        }
        Ok(self.produced)
    }

    /// A job that no number of killed workers fails.
    fn job(&mut self) -> Result<NewJob> {
        let millis = if self.dice.u8(..20) == 0 { self.dice.u64(20..500) } else { self.dice.u64(..5) };
        let fails = self.dice.u8(..50) == 0;
        let job = NewJob::dynamic(super::worker::KIND, &super::worker::Task { millis, fails })?;
        let job = job.max_attempts(100_000).crash_budget(100_000).priority(self.dice.i16(0..3));
        Ok(if self.dice.u8(..10) == 0 {
            job.delay(Duration::from_millis(self.dice.u64(..3_000)))
        } else {
            job
        })
    }

    /// Enqueues until it is acknowledged, always the same jobs.
    async fn enqueue(&mut self, batch: Vec<NewJob>) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.produced.calls += 1;
            match self.queue.enqueue_all(batch.clone()).await {
                Ok(answers) => {
                    self.produced.jobs += answers.len() as u64;
                    return Ok(());
                }
                Err(error) if error.is_transient() && begun.elapsed() < PATIENCE => {
                    self.produced.repeated += 1;
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
