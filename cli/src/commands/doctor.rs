use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use leasehold::backend::{Durability, Expired, Filter, Order};
use leasehold::{Clock as _, Reason, State, Store, SystemClock};
use serde::Serialize;
use tokio::time::Instant;

use super::{Context, missing_file};
use crate::failure::{FAILED, Failure};
use crate::words::{moment, span, thousands};

/// A clock that is off by more is told of: nothing depends on it but what people read.
const SKEW: Duration = Duration::from_secs(5);
/// A due job that has waited for longer is told of.
const OLD: Duration = Duration::from_hours(1);
/// How many ended jobs are many.
const MANY: u64 = 1_000_000;
/// How many workers and jobs are looked at.
const SOME: usize = 1_000;

/// Looks at a store and says what is wrong, and what mends it.
///
/// Ends with 1 if something is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold doctor\n  leasehold -o json doctor")]
pub(crate) struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Ok,
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    health: Health,
    finding: String,
    /// What to do about it.
    mend: String,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        check: &'static str,
        health: Health,
        finding: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.0.push(Finding { check, health, finding: finding.into(), mend: mend.into() });
    }

    fn ok(&mut self, check: &'static str, finding: impl Into<String>) {
        self.add(check, Health::Ok, finding, "");
    }
}

pub(crate) async fn run(_: Doctor, context: &Context) -> Result<(), Failure> {
    let mut findings = Findings::default();
    look(context, &mut findings).await?;
    let columns = ["check", "health", "finding", "what to do"];
    context.output.list(&findings.0, &columns, "nothing was looked at", |it| {
        let health = match it.health {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Bad => "BAD",
        };
        vec![it.check.to_owned(), health.to_owned(), it.finding.clone(), it.mend.clone()]
    })?;
    let is_bad = findings.0.iter().any(|it| it.health == Health::Bad);
    if is_bad { Err(Failure::said(FAILED)) } else { Ok(()) }
}

async fn look(context: &Context, findings: &mut Findings) -> Result<(), Failure> {
    let url = context.settings.url()?;
    if let Some(file) = missing_file(url) {
        findings.add("reach", Health::Bad, format!("there is no file {file}"), "leasehold migrate");
        return Ok(());
    }
    let store = match context.bare_store().await {
        Ok(store) => store,
        Err(failure) => {
            let mend = "is the server up, and the URL right? leasehold config show";
            findings.add("reach", Health::Bad, failure.to_string(), mend);
            return Ok(());
        }
    };
    let asked = Instant::now();
    match store.describe().await {
        Ok(description) => {
            let took = asked.elapsed();
            let what = format!(
                "{} {} at {}, {} ms",
                description.backend,
                description.version,
                description.location,
                took.as_millis()
            );
            findings.ok("reach", what);
            durability(&description.capabilities.durability, findings);
            if !description.capabilities.events {
                findings.add(
                    "events",
                    Health::Warning,
                    "the store tells of nothing: workers poll",
                    "a server with events makes waiting short",
                );
            }
        }
        Err(error) => {
            findings.add(
                "reach",
                Health::Bad,
                error.to_string(),
                "is the server up? Does the user have its rights?",
            );
            return Ok(());
        }
    }
    if let Err(error) = store.counts().await {
        findings.add("schema", Health::Bad, error.to_string(), "leasehold migrate");
        return Ok(());
    }
    findings.ok("schema", "of this version");
    rights(&store, findings).await;
    clock(&store, findings).await?;
    workers(&store, findings).await?;
    leases(&store, findings).await?;
    queues(&store, findings).await?;
    poison(&store, findings).await
}

fn durability(class: &Durability, findings: &mut Findings) {
    let (health, what) = match class {
        Durability::D0 => (Health::Warning, "an acknowledged job is lost with a process"),
        Durability::D1 => {
            (Health::Warning, "an acknowledged job survives any process, and not the loss of power")
        }
        Durability::D2 => (Health::Ok, "an acknowledged job survives the loss of power"),
        Durability::D3 => (Health::Ok, "an acknowledged job survives the loss of any minority of nodes"),
    };
    let mend = if health == Health::Ok { "" } else { "the guide's page on this store says which setting" };
    findings.add("durability", health, format!("{class}: {what}"), mend);
}

/// Takes a lock and gives it back, which is a write and a removal that hurt nobody.
async fn rights(store: &Store, findings: &mut Findings) {
    let tried = async {
        let lock = store.lock("leasehold doctor")?.lease(Duration::from_secs(5));
        if let Some(guard) = lock.try_acquire().await? {
            guard.run(std::future::ready(())).await?;
        }
        Ok::<(), leasehold::Error>(())
    };
    match tried.await {
        Ok(()) => findings.ok("rights", "it can be written to"),
        Err(error) => findings.add(
            "rights",
            Health::Bad,
            error.to_string(),
            "give the user the rights that the guide lists",
        ),
    }
}

async fn clock(store: &Store, findings: &mut Findings) -> Result<(), Failure> {
    let (theirs, ours) = (store.now().await?, SystemClock.now());
    let skew = theirs.since(ours).max(ours.since(theirs));
    if skew < SKEW {
        findings.ok("clock", format!("the store's is {} off this machine's", span(skew)));
    } else {
        let what = format!("the store says {}, this machine {}", moment(theirs), moment(ours));
        findings.add("clock", Health::Warning, what, "set the clocks by NTP; jobs go by the store's alone");
    }
    Ok(())
}

async fn workers(store: &Store, findings: &mut Findings) -> Result<(), Failure> {
    let workers = store.newest_workers(SOME).await?;
    let alive = workers.iter().filter(|worker| worker.is_alive()).count();
    let lost = workers.iter().filter(|worker| worker.lost).count();
    if alive == 0 {
        findings.add("workers", Health::Warning, "no worker is alive", "leasehold work --exec PROGRAM");
    } else {
        findings.ok("workers", format!("{alive} alive"));
    }
    if lost > 0 {
        let what = format!("{lost} were lost: they died, or cannot reach the store");
        findings.add("workers", Health::Warning, what, "leasehold workers list --all");
    }
    Ok(())
}

async fn leases(store: &Store, findings: &mut Findings) -> Result<(), Failure> {
    let limit = store.limits().page;
    let expired = store.backend().expired(store.deadline(), Expired { limit }).await?;
    match expired.first() {
        None => findings.ok("leases", "none has run out"),
        Some(first) => {
            let what = format!("{} have run out, as that of the job {}", expired.len(), first.job);
            findings.add("leases", Health::Bad, what, "any living worker takes them back: start one");
        }
    }
    Ok(())
}

async fn queues(store: &Store, findings: &mut Findings) -> Result<(), Failure> {
    let (now, counts) = (store.now().await?, store.counts().await?);
    let sum = |states: &[State]| -> u64 {
        counts.iter().flat_map(|it| states.iter().map(|state| it.of(*state))).sum()
    };
    let ended = sum(&[State::Succeeded, State::Failed, State::Cancelled]);
    let waiting = sum(&[State::Scheduled, State::Queued]);
    let total = format!(
        "{} wait, {} run, {} have ended",
        thousands(waiting),
        thousands(sum(&[State::Running])),
        thousands(ended)
    );
    if ended >= MANY {
        findings.add(
            "growth",
            Health::Warning,
            total,
            "keep them for less long: the guide's page on retention; leasehold jobs delete",
        );
    } else {
        findings.ok("growth", total);
    }
    for record in store.queues().await? {
        if let Some(pause) = record.settings.pause {
            let what = format!("{} is paused by {} {}", record.queue, pause.by, pause.reason);
            findings.add(
                "queues",
                Health::Warning,
                what,
                format!("leasehold queues resume {}", record.queue),
            );
        }
    }
    for counts in counts {
        let Some(oldest) = counts.oldest_due.filter(|oldest| now.since(*oldest) > OLD) else { continue };
        let what = format!("in {} a due job waits for {}", counts.queue, span(now.since(oldest)));
        findings.add(
            "queues",
            Health::Warning,
            what,
            format!("leasehold jobs list --queue {} --state queued, and why ID", counts.queue),
        );
    }
    Ok(())
}

async fn poison(store: &Store, findings: &mut Findings) -> Result<(), Failure> {
    let mut filter = Filter::default();
    filter.states = Some(vec![State::Failed]);
    filter.reasons = Some(vec![Reason::Poison, Reason::Unreadable]);
    let found: Vec<leasehold::JobRecord> =
        store.list_all(filter, Order::NewestFirst).take(SOME).try_collect().await?;
    match found.first() {
        None => findings.ok("poison", "no job has killed its workers"),
        Some(first) => {
            let what =
                format!("{} jobs killed their workers or cannot be read, as {}", found.len(), first.id);
            findings.add(
                "poison",
                Health::Warning,
                what,
                "leasehold jobs list --reason poison; leasehold jobs logs ID",
            );
        }
    }
    Ok(())
}
