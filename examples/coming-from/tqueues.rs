//! What TQueues shows first: a task names a method and has arguments; a worker runs it, it updates its own document, and
//! whoever watches the queue sees it change.
//!
//! `cargo run --example coming-from-tqueues -- --url sqlite:tqueues.db`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use futures::StreamExt;
use leasehold::backend::Event;
use leasehold::policy::BoxError;
use leasehold::worker::{Args, Json};
use leasehold::{Attempt, ErrorKind, NewJob, Progress, Store, Worker};
use serde::{Deserialize, Serialize};

/// Runs a task and watches its queue
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Call {
    args: Vec<u32>,
    kwargs: BTreeMap<String, String>,
}

/// `tqueues.worker.test`: says how far it is, sleeps, and returns what it was given.
async fn test(Args(call): Args<Call>, attempt: Attempt) -> Result<Json<Call>, BoxError> {
    let update = |done, message: &str| Progress {
        done,
        total: Some(2),
        message: message.into(),
        ..Progress::default()
    };
    attempt.progress(update(1, "started"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    attempt.progress(update(2, "slept"));
    Ok(Json(call))
}

/// `/ws?queue=Q`: prints what happens, for ever.
async fn print_changes(store: Store) -> leasehold::Result<()> {
    let mut events = match store.watch().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        events => events?,
    };
    while let Some(event) = events.next().await {
        if let Event::Changed { job, state, .. } = event {
            println!("{job} is {state}");
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let store = leasehold::connect(&Options::parse().url).await?;
    let watching = tokio::spawn(print_changes(store.clone()));

    // tqueues_worker --queue jobs
    let worker = Worker::builder(&store).queue("jobs").handle("tqueues.worker:test", test).build()?.start();

    // POST / with queue=jobs, method=tqueues.worker:test, args and kwargs. No PUT: a queue is there once it is named.
    let call = Call { args: vec![1, 2], kwargs: BTreeMap::from([("who".into(), "me".into())]) };
    let job = store.queue("jobs")?.enqueue(NewJob::dynamic("tqueues.worker:test", &call)?).await?;

    let done = store.wait(job, Duration::from_secs(10)).await?;
    println!("{} at {:?}", done.state, done.progress.map(|progress| progress.message));
    println!("{:?}", done.result.unwrap_or_default().parse::<Call>()?);
    worker.stop().await?;
    watching.abort();
    Ok(())
}
