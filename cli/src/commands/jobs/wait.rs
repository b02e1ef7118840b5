use clap::Args;
use leasehold::{JobId, State};

use super::missing;
use crate::commands::Context;
use crate::failure::{FAILED, Failure};
use crate::jobs::{lines, state, text};
use crate::output::say;

/// Waits until a job has ended, and prints its result.
///
/// Ends with 0 if the job succeeded, and with 1 if it failed, was cancelled, or did not end in time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold jobs wait 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d --for 30s")]
pub(crate) struct Wait {
    /// Which
    id: JobId,
    /// For how long at most
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    at_most: humantime::Duration,
}

pub(crate) async fn run(command: Wait, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    if store.find(command.id).await?.is_none() {
        return Err(missing(command.id));
    }
    let job = store.wait(command.id, command.at_most.into()).await?;
    match &job.result {
        Some(result) if job.state == State::Succeeded => {
            context.output.line(&job, &text(result.as_bytes()))?;
        }
        _ if context.output.format == crate::output::Format::Table => {
            say(&format!("{} is {}", job.id, state(&job)));
        }
        _ => context.output.one(&job, &lines(&job, store.now().await?))?,
    }
    if job.state == State::Succeeded { Ok(()) } else { Err(Failure::said(FAILED)) }
}
