//! What `mtq-scheduler` does: rules of iCalendar are added, listed, changed, paused, run now and removed, and fire while somebody
//! serves them.
//!
//! `cargo run --example coming-from-mtq-scheduler --features schedules -- --url sqlite:mtq.db`

use std::time::Duration;

use clap::Parser;
use leasehold::schedule::{Rule, Schedule, ScheduleRecord};
use leasehold::{NewJob, Store, Tag, Worker};

/// Recurring jobs
#[derive(Parser)]
struct Options {
    /// The store of the jobs
    #[arg(long, default_value = "memory:")]
    url: String,
}

// mtq-scheduler --add --rule RULE --task my_module.count_words --queue words --tags nightly --timeout 60
async fn add(store: &Store, name: &str, rule: &str) -> leasehold::Result<ScheduleRecord> {
    let job = NewJob::dynamic("my_module.count_words", &())?;
    let job = job.tag(Tag::new("nightly")?).timeout(Duration::from_secs(60));
    let schedule = Schedule::new(Rule::recurring(rule)?, job)?.queue("words".try_into()?);
    store.schedules().put(name, schedule).await
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let store = leasehold::connect(&Options::parse().url).await?;
    let schedules = store.schedules();

    // Where MTQ counted from `created`, a rule says where it begins, and in which zone.
    let nightly = "DTSTART;TZID=Europe/Berlin:20260101T023000\nRRULE:FREQ=DAILY";
    add(&store, "nightly", nightly).await?;
    add(&store, "often", "DTSTART:20260101T000000Z\nRRULE:FREQ=SECONDLY").await?;
    // In MTQ a rule with an end ended the scheduler.
    add(&store, "over", "DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY;COUNT=3").await?;

    // mtq-scheduler --update ID --rule RULE: what it was is remembered.
    let changed = add(&store, "nightly", &nightly.replace("023000", "033000")).await?;
    println!(
        "nightly was {}",
        changed.edits.last().map(|edit| edit.was.rule.to_string()).unwrap_or_default()
    );

    // mtq-scheduler --list, with the next three times
    let now = store.now().await?;
    for record in schedules.list(None, 100).await? {
        println!(
            "{}: {}, {} more",
            record.name,
            record.schedule.rule,
            record.schedule.rule.preview(now, 3).len()
        );
    }

    // mtq-scheduler --now, and --run beside a worker: any number of both
    schedules.run_now("nightly").await?;
    let worker = Worker::builder(&store).queue("words").handle("my_module.count_words", async || {});
    let summary = worker.schedules().max_time(Duration::from_secs(4)).build()?.run().await;
    println!("{} succeeded", summary.succeeded);
    for name in ["nightly", "often"] {
        let runs = schedules.get(name).await?.map(|record| record.runs).unwrap_or_default();
        println!("{name} ran {} times, last as {:?}", runs.len(), runs.last().map(|run| run.job));
    }

    // `paused`, which MTQ had no call for, and mtq-scheduler --remove ID
    schedules.pause("nightly", true).await?;
    schedules.delete("often").await?;
    schedules.delete("over").await?;
    println!("{} left", schedules.list(None, 100).await?.len());
    Ok(())
}
