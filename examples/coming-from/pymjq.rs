//! pymjq's first program: a message is published, and whoever iterates over the queue works on it.
//!
//! `cargo run --example coming-from-pymjq -- --url sqlite:pymjq.db`

use std::pin::pin;

use clap::Parser;
use futures::TryStreamExt;
use leasehold::{Error, ErrorKind, JobId, NewJob, Store};
use serde::{Deserialize, Serialize};

/// Publishes messages and iterates over them
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

#[derive(Serialize, Deserialize)]
struct Data {
    message: String,
}

fn message(message: &str) -> leasehold::Result<NewJob> {
    NewJob::dynamic("message", &Data { message: message.into() })
}

async fn show(store: &Store, job: JobId) -> leasehold::Result<()> {
    let record = store.find(job).await?;
    let shown = record.map(|job| {
        format!(
            "{} created {:?} started {:?} done {:?}",
            job.state, job.enqueued_at, job.started_at, job.finished_at
        )
    });
    println!("{}", shown.unwrap_or_default());
    Ok(())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    // jobqueue = JobQueue(db); jobqueue.valid()
    let store = leasehold::connect(&Options::parse().url).await?;
    println!("{:?}", store.describe().await?.capabilities.durability);
    let queue = store.queue("jobqueue")?;

    // jobqueue.pub({"message": "hello world!"})
    let first = queue.enqueue(message("hello world!")?).await?;
    show(&store, first).await?;

    // for j in jobqueue: ...
    let mut consumer = queue.consumer();
    {
        let mut jobs = pin!(consumer.stream());
        // Ends after one: theirs never did.
        if let Some(held) = jobs.try_next().await? {
            println!("{}", held.job().payload.parse::<Data>()?.message);
            // It is working while it is worked on, and done when the work is.
            show(&store, held.job().id).await?;
            held.complete(None).await?;
        }
    }
    show(&store, first).await?;

    // jobqueue.pub({"message": "hello again!"}); j = jobqueue.next()
    queue.enqueue(message("hello again!")?).await?;
    let none = || Error::new(ErrorKind::NotFound, "another consumer was quicker");
    let held = consumer.next().await?.ok_or_else(none)?;
    println!("{}", held.job().payload.parse::<Data>()?.message);
    held.complete(None).await?;

    // jobqueue.queue_count()
    println!("{} wait", queue.counts().await?.of(leasehold::State::Queued));
    consumer.close().await
}
