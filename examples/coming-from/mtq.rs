//! MTQ's first program: a function is put on a queue with its arguments, and a worker counts words. In place of web pages
//! these are files, so that it needs no network.
//!
//! `cargo run --example coming-from-mtq -- --url sqlite:mtq.db`

use std::time::Duration;

use clap::Parser;
use leasehold::policy::BoxError;
use leasehold::worker::{Args, Json};
use leasehold::{JobArgs, NewJob, Worker};
use serde::{Deserialize, Serialize};

/// Counts words in the background
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

#[derive(Serialize, Deserialize)]
struct CountWords {
    file: String,
}

impl JobArgs for CountWords {
    const KIND: &'static str = "my_module.count_words";
}

async fn count_words(Args(job): Args<CountWords>) -> Result<Json<usize>, BoxError> {
    let text = tokio::fs::read_to_string(&job.file).await?;
    Ok(Json(text.split_whitespace().count()))
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    // conn = mtq.default_connection(); q = conn.queue()
    let store = leasehold::connect(&Options::parse().url).await?;
    let queue = store.queue("default")?;

    // q.enqueue(count_words, file), and the same by the function's name
    let file = |name: &str| format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    let typed = queue.enqueue(CountWords { file: file("README.md") }).await?;
    let by_name = NewJob::dynamic("my_module.count_words", &CountWords { file: file("Cargo.toml") })?;
    let by_name = queue.enqueue(by_name.priority(1)).await?;
    println!("{} jobs wait", queue.counts().await?.of(leasehold::State::Queued));

    // mtq-worker --batch default
    let worker = Worker::builder(&store).queue("default").handle(CountWords::KIND, count_words);
    let summary = worker.until_idle().build()?.run().await;
    println!("{} succeeded, {} failed", summary.succeeded, summary.retried + summary.failed);

    // What MTQ forgot: the results.
    for job in [typed, by_name] {
        let done = store.wait(job, Duration::from_secs(10)).await?;
        let words: usize = done.result.unwrap_or_default().parse()?;
        println!("{}: {words} words in {}", done.state, done.payload.parse::<CountWords>()?.file);
    }
    Ok(())
}
