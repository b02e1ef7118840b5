use clap::Subcommand;

use super::Context;
use crate::failure::Failure;

/// The settings of this command.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Shows each setting and where it comes from.
    ///
    /// A flag counts before the environment, that before the file, and the file before the default.
    #[command(
        after_help = "Examples:\n  leasehold config show\n  LEASEHOLD_OUTPUT=json leasehold config show"
    )]
    Show,
}

pub(crate) fn run(command: &Config, context: &Context) -> Result<(), Failure> {
    match command {
        Config::Show => context.output.list(
            &context.settings.shown(),
            &["setting", "value", "from"],
            "there are no settings",
            |shown| vec![shown.setting.to_owned(), shown.value.clone(), shown.from.clone()],
        ),
    }
}
