//! What a fleet agrees on beside its jobs: a lock, a rate of the program's own, and the rate of a queue.
//!
//! `cargo run --example sharing`, or with a URL: `cargo run --example sharing -- sqlite:jobs.db`

use std::time::Duration;

use leasehold::client::Admission;
use leasehold::policy::Rate;
use leasehold::{NewJob, Worker};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let store = leasehold::connect(&url).await?;

    // One at a time, over all programs: whoever comes second waits, for at most five seconds.
    let ledger = store.lock("ledger")?.lease(Duration::from_secs(10)).wait(Duration::from_secs(5));
    let guard = ledger.acquire().await?;
    assert!(ledger.try_acquire().await?.is_none());
    let token = guard.token();
    guard.run(async { println!("alone, with the token {token}") }).await?;

    // At most three a second for each customer.
    for call in 1..=4 {
        match store.rate_limit("api of ann@example.org", 3, Duration::from_secs(1)).await? {
            Admission::Granted { left } => println!("call {call}: go on, {left} left with this one"),
            Admission::Refused { after } => println!("call {call}: not before {after:?} have passed"),
        }
    }

    // Of the mails at most five in half a second begin, however many workers there are.
    let mails = store.queue("mails")?;
    mails.set_rate(Some(Rate::new(5, Duration::from_millis(500)))).await?;
    mails.enqueue_all((0..12).map(|n| NewJob::dynamic("mail", &n)).collect::<Result<Vec<_>, _>>()?).await?;
    let begun = Instant::now();
    let worker = Worker::builder(&store).queue("mails").handle("mail", || async {}).until_idle().build()?;
    let summary = worker.run().await;
    println!("{} mails in {:?}", summary.succeeded, begun.elapsed());
    Ok(())
}
