mod enqueue;
mod lines;
mod list;
pub(crate) mod logs;
mod run;
mod wait;

use clap::{Args, Subcommand};
use leasehold::backend::Action;
use leasehold::{Due, JobId, QueueName, Store};

use super::Context;
use crate::bulk::{self, Many};
use crate::failure::Failure;
use crate::jobs;
use crate::selection::Moment;

/// Jobs: enqueue, find, follow and change them.
#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    Enqueue(enqueue::Enqueue),
    List(list::List),
    Show(Show),
    Wait(wait::Wait),
    Logs(logs::Logs),
    Cancel(Cancel),
    Requeue(Requeue),
    Delete(Delete),
    Move(Move),
    Prioritise(Prioritise),
    Postpone(Postpone),
    Run(run::Run),
}

/// Shows all of a job: its payload, its attempts and how they failed, its result.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs show 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n  leasehold -o json jobs show 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d"
)]
pub(crate) struct Show {
    /// Which
    id: JobId,
}

/// Cancels jobs: those that wait end at once, those that run are asked to.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs cancel 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n  leasehold jobs cancel --queue mail --kind newsletter --dry-run"
)]
pub(crate) struct Cancel {
    #[command(flatten)]
    many: Many,
}

/// Sends jobs that have ended round again, with their attempts counted anew.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs requeue --state failed --error TimedOut --since 2h\n  leasehold jobs requeue --queue mail --state failed --yes"
)]
pub(crate) struct Requeue {
    #[command(flatten)]
    many: Many,
    /// When they may run: 10m (from now) or a time [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
}

/// Deletes jobs, unless they run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs delete --state succeeded --until 7days\n  leasehold jobs delete 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d"
)]
pub(crate) struct Delete {
    #[command(flatten)]
    many: Many,
}

/// Moves jobs to another queue of the same store, unless they run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold jobs move --queue mail --tag slow --to mail/slow")]
pub(crate) struct Move {
    #[command(flatten)]
    many: Many,
    /// The other queue
    #[arg(long, value_name = "QUEUE")]
    to: QueueName,
}

/// Changes the priority of jobs; higher runs first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold jobs prioritise 10 --kind invoice --state queued")]
pub(crate) struct Prioritise {
    /// The new priority
    #[arg(allow_negative_numbers = true)]
    priority: i16,
    #[command(flatten)]
    many: Many,
}

/// Changes when waiting jobs may run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs postpone 30m --queue mail\n  leasehold jobs postpone 2030-01-01 --kind report"
)]
pub(crate) struct Postpone {
    /// The new moment: 10m (from now) or a time
    at: Moment,
    #[command(flatten)]
    many: Many,
}

pub(crate) async fn run(command: Jobs, context: &Context) -> Result<(), Failure> {
    match command {
        Jobs::Enqueue(command) => enqueue::run(command, context).await,
        Jobs::List(command) => list::run(command, context).await,
        Jobs::Show(Show { id }) => show(&context.store().await?, context, id).await,
        Jobs::Wait(command) => wait::run(command, context).await,
        Jobs::Logs(command) => logs::run(command, context).await,
        Jobs::Run(command) => Box::pin(run::run(command, context)).await,
        Jobs::Cancel(Cancel { many }) => bulk::change(context, &many, Action::Cancel, "cancelled").await,
        Jobs::Requeue(Requeue { many, at }) => {
            let due = at.map_or(Due::Now, due);
            bulk::change(context, &many, Action::Requeue { due }, "requeued").await
        }
        Jobs::Delete(Delete { many }) => bulk::change(context, &many, Action::Delete, "deleted").await,
        Jobs::Move(Move { many, to }) => {
            let done = format!("moved to {to}");
            bulk::change(context, &many, Action::Move { queue: to }, &done).await
        }
        Jobs::Prioritise(Prioritise { priority, many }) => {
            let done = format!("given priority {priority}");
            bulk::change(context, &many, Action::Reprioritise { priority }, &done).await
        }
        Jobs::Postpone(Postpone { at, many }) => {
            bulk::change(context, &many, Action::Postpone { due: due(at) }, "postponed").await
        }
    }
}

fn due(at: Moment) -> Due {
    match at {
        Moment::At(at) => Due::At(at),
        Moment::Ago(span) => Due::In(span),
    }
}

async fn show(store: &Store, context: &Context, id: JobId) -> Result<(), Failure> {
    let job = store.find(id).await?.ok_or_else(|| missing(id))?;
    context.output.one(&job, &jobs::lines(&job, store.now().await?))
}

fn missing(id: JobId) -> Failure {
    Failure::not_found(format!("there is no job {id}; ended jobs are removed once their retention is over"))
}
