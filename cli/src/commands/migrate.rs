use clap::Args;
use leasehold::ErrorKind;

use super::{Context, missing_file};
use crate::config::shown_url;
use crate::failure::{FAILED, Failure};
use crate::output::say;

/// Makes the tables of a store, or brings older ones up to this version.
///
/// It may be called at any time, by any number of processes at once. Every other command but `doctor` does the same first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold --url sqlite:jobs.db migrate\n  leasehold migrate --check")]
pub(crate) struct Migrate {
    /// Only tell whether the store can be used as it is; ends with 1 if it cannot
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(command: Migrate, context: &Context) -> Result<(), Failure> {
    let url = context.settings.url()?;
    let shown = shown_url(url);
    if !command.check {
        context.new_store().await?;
        say(&format!("{shown} is ready"));
        return Ok(());
    }
    if let Some(file) = missing_file(url) {
        say(&format!("there is no file {file}; `leasehold migrate` makes it"));
        return Err(Failure::said(FAILED));
    }
    match context.bare_store().await?.counts().await {
        Ok(_) => {
            say(&format!("{shown} can be used as it is"));
            Ok(())
        }
        Err(error) if error.is_transient() => Err(error.into()),
        Err(error) => {
            let newer = error.kind() == ErrorKind::Incompatible;
            let mend = if newer { "use a newer leasehold" } else { "`leasehold migrate` makes its tables" };
            say(&format!("{shown} cannot be used as it is: {error}; {mend}"));
            Err(Failure::said(FAILED))
        }
    }
}
