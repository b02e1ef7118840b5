//! Plays one round on effectum and prints what came of it as one line of JSON.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use effectum::{Error, JobBuilder, JobRunner, RunningJob};
use leasehold_peers_round::{Course, Job, Queue, Tally, Trouble, Worker, play};

/// How many jobs one call takes in.
const CHUNK: usize = 1_000;

/// Plays one round on effectum.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    jobs: usize,
    #[arg(long)]
    concurrency: usize,
    /// In seconds.
    #[arg(long)]
    limit: u64,
    /// Whether the worker asks for more only when half of what may run has ended.
    #[arg(long)]
    by_halves: bool,
}

struct Effectum {
    queue: effectum::Queue,
    by_halves: bool,
}

#[async_trait]
impl Queue for Effectum {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        for chunk in jobs.chunks(CHUNK) {
            let build = |job| JobBuilder::new("noop").json_payload(job).map(JobBuilder::build);
            self.queue.add_jobs(chunk.iter().map(build).collect::<Result<_, _>>()?).await?;
        }
        Ok(())
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        let concurrency = u16::try_from(concurrency)?;
        let mut builder = effectum::Worker::builder(&self.queue, tally)
            .max_concurrency(concurrency)
            .jobs([JobRunner::builder("noop", run).build()]);
        if self.by_halves {
            builder = builder.min_concurrency((concurrency / 2).max(1));
        }
        let worker = builder.build().await?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _ = stopped.await;
            Ok(worker.unregister(None).await?)
        };
        Ok(Worker::spawn(work, move || drop(stop)))
    }

    async fn left(&self) -> Result<u64, Trouble> {
        let active = self.queue.num_active_jobs().await?;
        Ok(active.pending + active.running)
    }
}

async fn run(job: RunningJob, tally: Arc<Tally>) -> Result<(), Error> {
    tally.ran(&job.json_payload()?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Trouble> {
    let Options { file, jobs, concurrency, limit, by_halves } = Options::parse();
    let queue = Effectum { queue: effectum::Queue::new(&file).await?, by_halves };
    let limit = Duration::from_secs(limit);
    let round = play(&queue, Course { jobs, concurrency, limit }).await?;
    println!("{}", serde_json::to_string(&round)?);
    Ok(queue.queue.close(limit).await?)
}
