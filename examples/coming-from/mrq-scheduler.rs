//! MRQ's `SCHEDULER_TASKS`: the list of recurring tasks is declared at each start of a program, what is no longer in it goes, and
//! workers with `--scheduler` fire it.
//!
//! `cargo run --example coming-from-mrq-scheduler --features schedules -- --url sqlite:mrq.db`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use leasehold::schedule::{Overlap, Rule, Schedule, Weekday};
use leasehold::{NewJob, Store, Timestamp, Worker};

/// Recurring jobs
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

// {"path": "tasks.Fetch", "params": {"url": URL}, "queue": "fetches", ...}
fn task(rule: Rule, url: &str) -> leasehold::Result<Schedule> {
    let job = NewJob::dynamic("tasks.Fetch", &BTreeMap::from([("url", url)]))?;
    Ok(Schedule::new(rule, job)?.queue("fetches".try_into()?))
}

/// Declares these tasks, and says what that did.
async fn declare(store: &Store, tasks: Vec<(&str, Schedule)>) -> leasehold::Result<()> {
    let mut named = BTreeMap::new();
    for (name, task) in tasks {
        named.insert(name.try_into()?, task);
    }
    let declared = store.schedules().declare("SCHEDULER_TASKS", named).await?;
    println!("written: {:?}, removed: {:?}", declared.written, declared.removed);
    Ok(())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let store = leasehold::connect(&Options::parse().url).await?;

    // {"interval": 1}, {"dailytime": ...}, {"weekday": 0, "dailytime": ...}, {"monthday": 31, "dailytime": ...}
    let often = task(Rule::every(Duration::from_secs(1), Timestamp::from_millis(0))?, "/often")?;
    let daily = task(Rule::daily("02:30", "UTC")?, "/daily")?;
    let weekly = task(Rule::weekly(Weekday::Mon, "02:30", "UTC")?, "/weekly")?;
    let monthly = task(Rule::monthly(31, "02:30", "UTC")?, "/monthly")?;
    // A tick that finds the last job still running: there both ran.
    let often = often.overlap(Overlap::QueueOne);
    let all =
        vec![("often", often.clone()), ("daily", daily.clone()), ("weekly", weekly), ("monthly", monthly)];
    declare(&store, all).await?;

    // The next start knows two of them.
    declare(&store, vec![("often", often), ("daily", daily)]).await?;
    for record in store.schedules().list(None, 100).await? {
        println!("{}: {}", record.name, record.schedule.rule);
    }

    // mrq-worker fetches --scheduler, twice: each tick is one job all the same.
    let worker = || Worker::builder(&store).queue("fetches").handle("tasks.Fetch", async || {}).schedules();
    let [one, other] = [worker(), worker()].map(|worker| worker.max_time(Duration::from_secs(4)).build());
    let (one, other) = tokio::join!(one?.run(), other?.run());
    println!("{} succeeded", one.succeeded + other.succeeded);
    let runs = store.schedules().get("often").await?.map(|record| record.runs).unwrap_or_default();
    println!("often ran {} times", runs.len());

    // An empty list, and nothing is left.
    declare(&store, Vec::new()).await
}
