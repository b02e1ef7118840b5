//! Jobs from one store to another: `copy` and `move`.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use leasehold::backend::{Action, AmendAnswer, Filter, QueueCounts};
use leasehold::client::{Account, Transfer};
use leasehold::{Limits, State, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Context, missing_file};
use crate::bulk::confirm;
use crate::failure::{CONFLICT, FAILED, Failure, UNREACHABLE, USAGE};
use crate::output::{say, style};
use crate::selection::Selection;
use crate::words::thousands;

/// How long is waited for a store that is away, between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Which stores, and which jobs.
#[derive(Debug, Clone, Args)]
struct Ways {
    /// The store that the jobs are in [default: --url]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The store that they go to; what it lacks is set up
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    selection: Selection,
    /// For how long a store may be away
    #[arg(long, value_name = "TIME", default_value = "2m")]
    patience: humantime::Duration,
    /// Only tell what would go
    #[arg(long)]
    dry_run: bool,
}

/// Moves jobs to another store, of any kind, while producers and workers are at work in both.
///
/// All of them, unless flags say which; in every state, with their logs; and with all of them, or all of a queue, the settings
/// and the schedules. What runs is left to its worker until it has ended. It may be stopped or killed at any moment: the same
/// command goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  leasehold move --from sqlite:jobs.db --to mongodb://127.0.0.1/jobs --dry-run
  leasehold move --from redis://127.0.0.1/ --to postgres://127.0.0.1/jobs --queue mail/ --yes
  leasehold move --from sqlite:jobs.db --to sqlite:archive.db --state succeeded --until 30days --yes")]
pub(crate) struct Move {
    #[command(flatten)]
    ways: Ways,
    /// For how long it waits for what still runs [default: as long as it takes]
    #[arg(long, value_name = "TIME")]
    wait: Option<humantime::Duration>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Copies jobs to another store, of any kind.
///
/// What waits or runs is parked in the copy, and schedules are paused there, so that nothing is done twice. A later `move` brings what
/// is missing and lets it go on there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  leasehold copy --from mongodb://127.0.0.1/jobs --to sqlite:backup.db
  leasehold copy --to sqlite:failed.db --state failed --since 1day")]
pub(crate) struct Copy {
    #[command(flatten)]
    ways: Ways,
}

pub(crate) async fn copy(Copy { ways }: Copy, context: &Context) -> Result<(), Failure> {
    let (from, to) = open(&ways, context).await?;
    let filter = ways.selection.filter(&from).await?;
    if ways.dry_run {
        return preview(&from, filter, context, "copied").await.map(drop);
    }
    let bar = bar(&from, &filter).await;
    carry_out(from.copy_to(&to).only(filter), &bar, &ways, context, "copied").await
}

pub(crate) async fn move_all(Move { ways, wait, yes }: Move, context: &Context) -> Result<(), Failure> {
    let (from, to) = open(&ways, context).await?;
    let filter = ways.selection.filter(&from).await?;
    if ways.dry_run {
        return preview(&from, filter, context, "moved").await.map(drop);
    }
    if !yes {
        confirm(&look(&from, filter.clone()).await?.told("moved"))?;
    }
    let bar = bar(&from, &filter).await;
    let mut order = from.move_to(&to).only(filter);
    if let Some(wait) = wait {
        order = order.patience(wait.into());
    }
    carry_out(order, &bar, &ways, context, "moved").await
}

/// Both stores; the one that the jobs go to may be new.
async fn open(ways: &Ways, context: &Context) -> Result<(Store, Store), Failure> {
    let from = match &ways.from {
        Some(url) => url.as_str(),
        None => context.settings.url()?,
    };
    if from == ways.to {
        return Err(Failure::new(USAGE, "--from and --to are the same store"));
    }
    if let Some(file) = missing_file(from) {
        return Err(Failure::not_found(format!("there is no file {file}; correct --from")));
    }
    Ok((store(from, context).await?, store(&ways.to, context).await?))
}

async fn store(url: &str, context: &Context) -> Result<Store, Failure> {
    let backend = leasehold::open(url).await?;
    let store = Store::with_limits(backend, Limits::default()).patience(context.settings.timeout.value);
    store.setup().await?;
    Ok(store)
}

/// What there is to go.
#[derive(Debug, Default, serde::Serialize)]
struct Found {
    waiting: u64,
    ended: u64,
    running: u64,
}

impl Found {
    fn told(&self, done: &str) -> String {
        let Self { waiting, ended, running } = self;
        let all = thousands(waiting + ended + running);
        let (waiting, ended, running) = (thousands(*waiting), thousands(*ended), thousands(*running));
        format!(
            "{all} jobs would be {done}: {waiting} that wait, {ended} that have ended, {running} that run now"
        )
    }
}

async fn look(from: &Store, filter: Filter) -> Result<Found, Failure> {
    let progress = ProgressBar::new_spinner();
    progress.set_style(style("{spinner} looking {human_pos} jobs, {per_sec}, {elapsed}"));
    let mut found = Found::default();
    let mut bulk = from.amend_all(filter, Action::Withdraw).await?.preview();
    while let Some(batch) = bulk.next().await? {
        progress.inc(batch.len() as u64);
        for (_, answer) in batch {
            match answer {
                AmendAnswer::Refused(State::Running) => found.running += 1,
                AmendAnswer::Refused(_) => found.ended += 1,
                AmendAnswer::NotFound => {}
                _ => found.waiting += 1,
            }
        }
    }
    progress.finish_and_clear();
    Ok(found)
}

async fn preview(from: &Store, filter: Filter, context: &Context, done: &str) -> Result<(), Failure> {
    let found = look(from, filter).await?;
    context.output.line(&found, &found.told(done))
}

/// Does it, again and again while a store is away, and gives account.
async fn carry_out(
    order: Transfer,
    bar: &ProgressBar,
    ways: &Ways,
    context: &Context,
    done: &str,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let listening = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopping.cancel();
        }
    });
    let (mut account, mut since) = (Account::default(), Instant::now());
    let ended = loop {
        let mut latest = Account::default();
        let run = order.clone().until(stop.clone()).run(|now| {
            let gone = account.gone() + account.held + now.gone() + now.held;
            bar.set_length(bar.length().map_or(gone, |all| all.max(gone)));
            bar.set_position(gone);
            bar.set_message(if now.busy() > 0 {
                format!("; {} run", thousands(now.busy()))
            } else {
                String::new()
            });
            latest = now.clone();
        });
        let outcome = run.await;
        if latest.gone() > 0 {
            since = Instant::now();
        }
        account.add(latest);
        match outcome {
            Err(error)
                if error.is_transient() && since.elapsed() < *ways.patience && !stop.is_cancelled() =>
            {
                bar.suspend(|| say(&format!("{error}; trying again")));
                tokio::time::sleep(PAUSE).await;
            }
            outcome => break outcome,
        }
    };
    listening.abort();
    bar.finish_and_clear();
    context.output.line(&account, &told(&account, done))?;
    for (job, holder) in &account.holders {
        say(&format!("{job} stays: {holder} holds its unique key at the other store"));
    }
    for schedule in &account.schedules_held {
        say(&format!("the schedule {schedule} stays: the other store has one of this name"));
    }
    if let Err(error) = ended {
        say("run the same command again to go on");
        let code = if error.is_transient() { UNREACHABLE } else { return Err(error.into()) };
        return Err(Failure::new(code, error.to_string()));
    }
    if stop.is_cancelled() || account.busy() > 0 {
        say("not all has gone; run the same command again to go on");
        return Err(Failure::said(FAILED));
    }
    if account.held > 0 || !account.schedules_held.is_empty() {
        return Err(Failure::said(CONFLICT));
    }
    Ok(())
}

fn told(account: &Account, done: &str) -> String {
    let mut parts = vec![format!("{} {done}", thousands(account.taken))];
    let mut add = |number: u64, what: &str| {
        if number > 0 {
            parts.push(format!("{} {what}", thousands(number)));
        }
    };
    add(account.there, "were there already");
    add(account.held, "stay (unique key held there)");
    add(account.running, "run still");
    add(account.in_flows, "are in flows that go on");
    add(account.lines, "log lines");
    add(account.queues, "queue settings");
    add(account.schedules, "schedules");
    add(account.flows, "flows");
    let met = thousands(account.met);
    let sum = if account.adds_up() { "all accounted for" } else { "NOT all accounted for" };
    format!("{}; {met} met, {sum}", parts.join(", "))
}

/// A bar as long as the jobs that there are, where that is known without looking at each.
async fn bar(from: &Store, filter: &Filter) -> ProgressBar {
    let mut rest = filter.clone();
    let queues = rest.queues.take();
    let counts = if rest == Filter::default() { from.counts().await.unwrap_or_default() } else { Vec::new() };
    let goes = |counts: &&QueueCounts| queues.as_ref().is_none_or(|queues| queues.contains(&counts.queue));
    let all: u64 = counts.iter().filter(goes).map(QueueCounts::total).sum();
    let (bar, template) = if all > 0 {
        (ProgressBar::new(all), "{bar:30} {human_pos} of {human_len} jobs, {per_sec}, {eta} left{msg}")
    } else {
        (ProgressBar::new_spinner(), "{spinner} {human_pos} jobs, {per_sec}, {elapsed}{msg}")
    };
    bar.set_style(style(template));
    bar
}
