use clap::Args;
use leasehold::backend::{Action, AmendAnswer};
use leasehold::worker::HandlerOptions;
use leasehold::{Due, JobId, QueueName, State, Worker};

use super::missing;
use crate::commands::Context;
use crate::commands::work::{self as command, Program};
use crate::failure::{CONFLICT, FAILED, Failure};
use crate::jobs::{lines, state};
use crate::output::say;

/// Runs one job here and now by a program, out of turn.
///
/// The job is moved into a queue of its own, run from there, and moved back. One that has ended is sent round again; one that runs
/// is left alone.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs run 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d --exec ./handle.sh"
)]
pub(crate) struct Run {
    /// Which
    id: JobId,
    #[command(flatten)]
    program: Program,
}

pub(crate) async fn run(command: Run, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    let id = command.id;
    let job = store.find(id).await?.ok_or_else(|| missing(id))?;
    if job.state == State::Running {
        let why = format!("the job {id} runs; cancel it first, or wait until it has ended");
        return Err(Failure::new(CONFLICT, why));
    }
    let aside = QueueName::new(format!("run/{id}"))?;
    // Out of everybody's reach first, and due then.
    taken(id, store.amend(id, Action::Move { queue: aside.clone() }).await?)?;
    let due = if job.state.is_terminal() {
        Action::Requeue { due: Due::Now }
    } else {
        Action::Postpone { due: Due::Now }
    };
    taken(id, store.amend(id, due).await?)?;
    let worker = Worker::builder(&store).queue(aside).concurrency(1).prefetch(0).max_jobs(1).until_idle();
    let worker = worker.handle_other(HandlerOptions::default(), command.program.process()?).build()?;
    command::until_ended(worker).await?;
    let home = store.amend(id, Action::Move { queue: job.queue.clone() }).await?;
    if home != AmendAnswer::Applied {
        say(&format!("the job {id} could not be moved back into the queue {}", job.queue));
    }
    let ended = store.find(id).await?.ok_or_else(|| missing(id))?;
    context.output.one(&ended, &lines(&ended, store.now().await?))?;
    if ended.state == State::Succeeded {
        return Ok(());
    }
    say(&format!("{id} is {}", state(&ended)));
    Err(Failure::said(FAILED))
}

fn taken(id: JobId, answer: AmendAnswer) -> Result<(), Failure> {
    match answer {
        AmendAnswer::Applied | AmendAnswer::AlreadyApplied => Ok(()),
        AmendAnswer::NotFound => Err(missing(id)),
        AmendAnswer::Held(other) => {
            Err(Failure::new(CONFLICT, format!("the job {other} holds the unique key of {id}")))
        }
        AmendAnswer::Refused(_) | AmendAnswer::Requested => {
            Err(Failure::new(CONFLICT, format!("somebody else took the job {id} just now")))
        }
    }
}
