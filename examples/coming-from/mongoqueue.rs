//! mongoqueue's first program: items are put, taken by hand, and each is worked on, given back, failed or completed.
//!
//! `cargo run --example coming-from-mongoqueue -- --url sqlite:mongoqueue.db`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use leasehold::policy::{Backoff, BoxError, RetryPolicy};
use leasehold::{Error, ErrorKind, HeldJob, NewJob, Progress};

/// Puts items into a queue and takes them by hand
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

type Item = BTreeMap<String, u32>;

fn item(foobar: u32) -> leasehold::Result<NewJob> {
    Ok(NewJob::dynamic("item", &Item::from([("foobar".into(), foobar)]))?.max_attempts(3))
}

fn show(held: Option<HeldJob>, what: &str) -> leasehold::Result<HeldJob> {
    let held = held.ok_or_else(|| Error::new(ErrorKind::NotFound, "another consumer was quicker"))?;
    println!("attempt {} at {:?}: {what}", held.job().attempt, held.job().payload.parse::<Item>()?);
    Ok(held)
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let store = leasehold::connect(&Options::parse().url).await?;

    // MongoQueue(collection, consumer_id, timeout=300, max_attempts=3)
    let queue = store.queue("doctest_queue")?;
    let at_once = RetryPolicy::new(Backoff::Fixed { delay: Duration::ZERO });
    let mut consumer = queue.consumer().lease(Duration::from_secs(300)).retry(at_once);

    // queue.put({"foobar": 1}); queue.put({"foobar": 0}, priority=1)
    queue.enqueue(item(1)?).await?;
    queue.enqueue(item(0)?.priority(1)).await?;

    // job = queue.next(); job.progress(50); job.release()
    let mut held = show(consumer.next().await?, "half done, then given back")?;
    held.progress(Progress { done: 50, total: Some(100), ..Progress::default() }).await?;
    held.release().await?;

    // job.error("..."): the attempt that a release gave back is spent now.
    show(consumer.next().await?, "fails")?.fail("no beans are left").await?;

    // with job as data: ...
    let held = show(consumer.next().await?, "runs in a scope that completes it")?;
    println!("  before, it failed by {:?}", held.job().last_failure().map(|failure| &failure.message));
    let work = held.run(|job| async move {
        println!("  data: {:?}", job.payload.parse::<Item>()?);
        Ok::<_, BoxError>(None)
    });
    work.await?;

    // job.complete()
    show(consumer.next().await?, "completed")?.complete(None).await?;
    println!("nothing is left: {}", consumer.next().await?.is_none());

    // queue.stats()
    println!("{:?}", queue.counts().await?.states);
    consumer.close().await
}
