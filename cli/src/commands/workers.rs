use clap::{Args, Subcommand};
use futures::StreamExt;
use leasehold::backend::{Filter, LogSource, StopWorkers, WorkerRecord};
use leasehold::{State, Store, Timestamp, WorkerId};

use super::Context;
use super::jobs::logs;
use crate::bulk::confirm;
use crate::failure::Failure;
use crate::jobs::{COLUMNS, row};
use crate::output::say;
use crate::words::{moment, relative, thousands};

/// Workers: who they are, what they do and say.
#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    List(List),
    /// Shows a worker, and the jobs that it runs.
    #[command(after_help = "Examples:\n  leasehold workers show 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d")]
    Show {
        /// Which
        id: WorkerId,
    },
    Logs(Logs),
    Stop(Stop),
}

/// Lists the workers, the newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold workers list\n  leasehold workers list --all --limit 1000")]
pub(crate) struct List {
    /// Those too that are gone
    #[arg(short, long)]
    all: bool,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 200)]
    limit: usize,
}

/// Prints what a worker's jobs say, or the worker itself.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold workers logs --follow 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n  leasehold workers logs --own 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d"
)]
pub(crate) struct Logs {
    /// Whose
    id: WorkerId,
    /// What it says itself, outside of jobs
    #[arg(long)]
    own: bool,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
}

/// Asks workers to stop: they finish what runs, and end.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold workers stop 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n  leasehold workers stop --host web-3\n  leasehold workers stop --all --yes"
)]
pub(crate) struct Stop {
    /// This one
    #[arg(required_unless_present_any = ["host", "all"])]
    id: Option<WorkerId>,
    /// Those on this host
    #[arg(long, conflicts_with = "id")]
    host: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["id", "host"])]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(crate) async fn run(command: Workers, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    match command {
        Workers::List(command) => list(&store, context, &command).await,
        Workers::Show { id } => show(&store, context, id).await,
        Workers::Logs(command) => print_logs(&store, context, &command).await,
        Workers::Stop(command) => stop(&store, command).await,
    }
}

/// How a worker is, in a word.
pub(crate) fn status(worker: &WorkerRecord) -> &'static str {
    match (worker.left, worker.lost, worker.stop_requested) {
        (true, _, _) => "left",
        (_, true, _) => "lost",
        (_, _, true) => "stopping",
        _ => "alive",
    }
}

async fn list(store: &Store, context: &Context, command: &List) -> Result<(), Failure> {
    let now = store.now().await?;
    let mut workers = store.newest_workers(command.limit).await?;
    workers.retain(|worker| command.all || worker.is_alive());
    let columns = ["id", "name", "host", "pid", "status", "queues", "running", "processed", "seen"];
    let empty = "no worker is alive; `leasehold work --exec PROGRAM` is one, and --all shows those that were";
    context.output.list(&workers, &columns, empty, |worker| {
        let info = &worker.info;
        vec![
            worker.worker.to_string(),
            info.name.to_string(),
            info.host.clone(),
            info.pid.to_string(),
            status(worker).to_owned(),
            info.queues.iter().map(leasehold::QueueName::as_str).collect::<Vec<_>>().join(" "),
            format!("{}/{}", info.running, info.concurrency),
            thousands(info.processed),
            relative(worker.seen_at, now),
        ]
    })
}

async fn show(store: &Store, context: &Context, id: WorkerId) -> Result<(), Failure> {
    let now = store.now().await?;
    let worker = store.worker(id).await?.ok_or_else(|| missing(id))?;
    let info = &worker.info;
    let at = |at: Timestamp| format!("{} ({})", moment(at), relative(at, now));
    let join =
        |words: Vec<&str>, none: &str| if words.is_empty() { none.to_owned() } else { words.join(" ") };
    let lines = [
        ("id", id.to_string()),
        ("name", info.name.to_string()),
        ("status", status(&worker).to_owned()),
        ("host", format!("{}, process {}", info.host, info.pid)),
        ("queues", join(info.queues.iter().map(leasehold::QueueName::as_str).collect(), "none")),
        ("kinds", join(info.kinds.iter().map(leasehold::Kind::as_str).collect(), "any")),
        ("tags", join(info.tags.iter().map(leasehold::Tag::as_str).collect(), "any")),
        ("running", format!("{} of {}", info.running, info.concurrency)),
        ("processed", thousands(info.processed)),
        ("started", at(worker.started_at)),
        ("seen", at(worker.seen_at)),
    ];
    context.output.one(&worker, &lines)?;
    if context.output.format != crate::output::Format::Table {
        return Ok(());
    }
    let mut filter = Filter::default();
    filter.worker = Some(id);
    filter.states = Some(vec![State::Running]);
    let jobs = store.list(filter, None, store.limits().page).await?.jobs;
    context.output.list(&jobs, &COLUMNS, "it runs no job", |job| row(job, now))
}

fn missing(id: WorkerId) -> Failure {
    Failure::not_found(format!("there is no worker {id}; `leasehold workers list --all` has them"))
}

async fn print_logs(store: &Store, context: &Context, command: &Logs) -> Result<(), Failure> {
    let id = command.id;
    if store.worker(id).await?.is_none() {
        return Err(missing(id));
    }
    if command.own {
        let log = store.worker_log(id, 0).await?;
        let mut after = 0;
        for line in &log.lines {
            after = line.sequence;
            print_own(context, line)?;
        }
        if !command.follow {
            return Ok(());
        }
        let mut more = std::pin::pin!(store.follow_worker(id, after));
        while let Some(log) = more.next().await {
            match log {
                Ok(log) => log.lines.iter().try_for_each(|line| print_own(context, line))?,
                Err(error) => say(&format!("{error}; going on")),
            }
        }
        return Ok(());
    }
    let after = logs::print_rest(store, context, LogSource::Worker(id), 0).await?;
    if !command.follow {
        return Ok(());
    }
    let mut more = std::pin::pin!(store.follow(LogSource::Worker(id), after));
    while let Some(page) = more.next().await {
        match page {
            Ok(page) => drop(logs::print(context, LogSource::Worker(id), &page)?),
            Err(error) => say(&format!("{error}; going on")),
        }
    }
    Ok(())
}

fn print_own(context: &Context, line: &leasehold::client::SaidLine) -> Result<(), Failure> {
    let level = line.level.to_string();
    let value = serde_json::json!({
        "sequence": line.sequence, "at": line.at, "level": level, "message": line.message,
    });
    context.output.line(&value, &format!("{} {level:5} {}", moment(line.at), line.message))
}

async fn stop(store: &Store, command: Stop) -> Result<(), Failure> {
    let (which, whom) = match (command.id, command.host) {
        (Some(id), _) => (StopWorkers::One(id), format!("the worker {id}")),
        (None, Some(host)) => (StopWorkers::Host(host.clone()), format!("the workers on {host}")),
        (None, None) => (StopWorkers::All, "all workers".to_owned()),
    };
    if !command.yes && !matches!(which, StopWorkers::One(_)) {
        confirm(&format!("{whom} will be asked to stop"))?;
    }
    let one = command.id;
    match store.stop_workers(which).await? {
        0 => Err(one.map_or_else(|| Failure::not_found("there are none"), missing)),
        asked => {
            say(&format!("{} asked to stop; they finish what runs, and end", thousands(asked)));
            Ok(())
        }
    }
}
