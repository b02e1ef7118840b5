//! MRQ's first program: a task that fetches is run at once, then three times from a queue by a worker that works on all
//! of them at the same time. In place of web pages these are files, so that it needs no network.
//!
//! `cargo run --example coming-from-mrq -- --url sqlite:mrq.db`

use std::time::Duration;

use clap::Parser;
use leasehold::backend::{Level, LogSource};
use leasehold::policy::BoxError;
use leasehold::worker::{Args, Json};
use leasehold::{Attempt, JobArgs, Worker};
use serde::{Deserialize, Serialize};

/// Fetches in the background
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

#[derive(Serialize, Deserialize)]
struct Fetch {
    url: String,
}

impl JobArgs for Fetch {
    const KIND: &'static str = "tasks.Fetch";
}

async fn size(url: &str) -> Result<usize, BoxError> {
    let size = tokio::fs::read(format!("{}/{url}", env!("CARGO_MANIFEST_DIR"))).await?.len();
    // From anywhere inside a job, as MRQ's `log`: outside of one there is no attempt.
    if let Some(attempt) = Attempt::current() {
        attempt.log(Level::Info, format!("{url} has {size} bytes"));
    }
    Ok(size)
}

async fn fetch(Args(fetch): Args<Fetch>) -> Result<Json<usize>, BoxError> {
    size(&fetch.url).await.map(Json)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // mrq-run tasks.Fetch url README.md: a handler calls plain functions, and so can anyone.
    println!("{}", size("README.md").await?);

    // mrq-run --queue fetches tasks.Fetch url ...
    let store = leasehold::connect(&Options::parse().url).await?;
    let urls = ["README.md", "Cargo.toml", "src/lib.rs"];
    let queue = store.queue("fetches")?;
    let jobs = queue.enqueue_all(urls.map(|url| Fetch { url: url.into() })).await?;
    jobs.iter().for_each(|queued| println!("{}", queued.job));

    // mrq-worker fetches --greenlets 10 --dequeue_strategy burst
    let worker = Worker::builder(&store).queue("fetches").handle(Fetch::KIND, fetch);
    let summary = worker.concurrency(10).until_idle().build()?.run().await;
    println!("{} succeeded, {} failed", summary.succeeded, summary.retried + summary.failed);

    // get_job_result(id), and /api/logs?job=id
    for queued in jobs {
        let done = store.wait(queued.job, Duration::from_secs(10)).await?;
        println!("{}: {}", done.state, done.result.unwrap_or_default().parse::<usize>()?);
        for line in store.logs(LogSource::Job(queued.job), 0, 100).await?.lines {
            println!("  {} {}", line.level, line.message);
        }
    }
    Ok(())
}
