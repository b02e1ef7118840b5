use clap::{Args, Subcommand};
use leasehold::backend::{Action, QueueCounts, QueueRecord};
use leasehold::policy::Rate;
use leasehold::{Queue, QueueName, State, Store, Timestamp};
use serde::Serialize;

use super::Context;
use crate::bulk::{self, Care, Many};
use crate::failure::Failure;
use crate::output::say;
use crate::selection::{Selection, Targets};
use crate::words::{relative, span, thousands};

/// Queues: what is in them, and how they behave.
#[derive(Debug, Subcommand)]
pub(crate) enum Queues {
    /// Lists the queues and what is in them.
    #[command(after_help = "Examples:\n  leasehold queues list\n  leasehold -o json queues list")]
    List,
    /// Shows a queue.
    #[command(after_help = "Examples:\n  leasehold queues show mail")]
    Show {
        /// Which
        queue: QueueName,
    },
    Pause(Pause),
    /// Lets a queue go on.
    #[command(after_help = "Examples:\n  leasehold queues resume mail")]
    Resume {
        /// Which
        queue: QueueName,
    },
    Rate(SetRate),
    Purge(Purge),
}

/// Pauses a queue: it gives out nothing, and what runs goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold queues pause mail --reason 'the relay is down'\n  leasehold queues pause main/   # and all under it"
)]
pub(crate) struct Pause {
    /// Which; main/ pauses all under it
    queue: QueueName,
    /// Why, for whoever looks
    #[arg(long, default_value = "")]
    reason: String,
    /// Who does it [default: the user's name]
    #[arg(long, env = "USER", hide_env = true, default_value = "somebody")]
    by: String,
}

/// Bounds how many jobs a queue gives out in a span of time, over all workers.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold queues rate mail 100 --per 1m\n  leasehold queues rate mail --none"
)]
pub(crate) struct SetRate {
    /// Which
    queue: QueueName,
    /// How many
    #[arg(required_unless_present = "none")]
    jobs: Option<u32>,
    /// In how long
    #[arg(long, value_name = "TIME", default_value = "1s")]
    per: humantime::Duration,
    /// As many as there are
    #[arg(long, conflicts_with = "jobs")]
    none: bool,
}

/// Deletes all jobs of a queue that do not run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold queues purge mail --dry-run\n  leasehold queues purge mail --state queued --yes"
)]
pub(crate) struct Purge {
    /// Which
    queue: QueueName,
    /// Only those in this state
    #[arg(short, long, value_name = "STATE")]
    state: Vec<State>,
    #[command(flatten)]
    care: Care,
}

/// A queue as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    counts: QueueCounts,
    settings: leasehold::backend::QueueSettings,
    changed_at: Option<Timestamp>,
}

pub(crate) async fn run(command: Queues, context: &Context) -> Result<(), Failure> {
    match command {
        Queues::List => list(&context.store().await?, context).await,
        Queues::Show { queue } => show(&context.store().await?, context, &queue).await,
        Queues::Pause(Pause { queue, reason, by }) => {
            named(context, &queue).await?.pause(by, reason).await?;
            say(&format!("the queue {queue} is paused"));
            Ok(())
        }
        Queues::Resume { queue } => {
            named(context, &queue).await?.resume().await?;
            say(&format!("the queue {queue} goes on"));
            Ok(())
        }
        Queues::Rate(SetRate { queue, jobs, per, .. }) => {
            let rate = jobs.map(|jobs| Rate::new(jobs, per.into()));
            named(context, &queue).await?.set_rate(rate).await?;
            let told = jobs.map_or_else(|| "no rate".to_owned(), |jobs| format!("{jobs} jobs in {per}"));
            say(&format!("the queue {queue} has {told}"));
            Ok(())
        }
        Queues::Purge(command) => purge(command, context).await,
    }
}

async fn named(context: &Context, queue: &QueueName) -> Result<Queue, Failure> {
    Ok(context.store().await?.queue(queue.clone())?)
}

async fn purge(Purge { queue, state, care }: Purge, context: &Context) -> Result<(), Failure> {
    let selection = Selection { queue: vec![queue], state, ..Selection::default() };
    let targets = Targets { ids: Vec::new(), selection, all: false };
    bulk::change(context, &Many { targets, care }, Action::Delete, "deleted").await
}

async fn shown(store: &Store) -> Result<Vec<Shown>, Failure> {
    let (records, counts) = (store.queues().await?, store.counts().await?);
    let mut counts: std::collections::BTreeMap<QueueName, QueueCounts> =
        counts.into_iter().map(|counts| (counts.queue.clone(), counts)).collect();
    let mut settings: std::collections::BTreeMap<QueueName, QueueRecord> =
        records.into_iter().map(|record| (record.queue.clone(), record)).collect();
    let names: std::collections::BTreeSet<QueueName> =
        counts.keys().chain(settings.keys()).cloned().collect();
    Ok(names
        .into_iter()
        .map(|queue| {
            let record = settings.remove(&queue);
            let (settings, changed_at) = record.map(|it| (it.settings, it.changed_at)).unwrap_or_default();
            let counts = counts.remove(&queue).unwrap_or_else(|| QueueCounts::empty(queue));
            Shown { counts, settings, changed_at }
        })
        .collect())
}

async fn list(store: &Store, context: &Context) -> Result<(), Failure> {
    let (now, queues) = (store.now().await?, shown(store).await?);
    let columns = [
        "queue",
        "scheduled",
        "queued",
        "running",
        "succeeded",
        "failed",
        "cancelled",
        "oldest due",
        "settings",
    ];
    context.output.list(&queues, &columns, "there are no queues yet: the first job makes one", |shown| {
        let mut row = vec![shown.counts.queue.to_string()];
        row.extend(State::ALL.map(|state| thousands(shown.counts.of(state))));
        row.push(shown.counts.oldest_due.map_or_else(String::new, |at| relative(at, now)));
        row.push(settings(shown));
        row
    })
}

fn settings(shown: &Shown) -> String {
    let pause = shown.settings.pause.as_ref().map(|pause| {
        let why = if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
        format!("paused by {}{why}", pause.by)
    });
    let rate = shown.settings.rate.map(|rate| format!("{} in {}", rate.limit, span(rate.per)));
    pause.into_iter().chain(rate).collect::<Vec<_>>().join("; ")
}

async fn show(store: &Store, context: &Context, queue: &QueueName) -> Result<(), Failure> {
    let now = store.now().await?;
    let Some(queue_shown) = shown(store).await?.into_iter().find(|shown| shown.counts.queue == *queue) else {
        return Err(Failure::not_found(format!(
            "there is no queue {queue}; `leasehold queues list` has them"
        )));
    };
    let mut lines = vec![("queue", queue.to_string())];
    let names = ["scheduled", "queued", "running", "succeeded", "failed", "cancelled"];
    lines.extend(names.into_iter().zip(State::ALL.map(|state| thousands(queue_shown.counts.of(state)))));
    lines.push(("taken in", thousands(queue_shown.counts.enqueued)));
    lines.push(("removed", thousands(queue_shown.counts.deleted)));
    if let Some(oldest) = queue_shown.counts.oldest_due {
        lines.push(("oldest due", relative(oldest, now)));
    }
    lines.push(("settings", settings(&queue_shown)));
    if let Some(at) = queue_shown.changed_at {
        lines.push(("changed", relative(at, now)));
    }
    context.output.one(&queue_shown, &lines)
}
