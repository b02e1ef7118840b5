use clap::Args;
use leasehold::JobId;

use super::Context;
use crate::failure::Failure;

/// Tells why a job does not run.
///
/// The first line is what has to be mended first.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold why 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n  leasehold -o json why 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d"
)]
pub(crate) struct Why {
    /// Which job
    id: JobId,
}

pub(crate) async fn run(command: Why, context: &Context) -> Result<(), Failure> {
    let why = context.store().await?.why(command.id).await?;
    let sentences: Vec<String> = why.iter().map(ToString::to_string).collect();
    context.output.line(&why, &sentences.join("\n"))
}
