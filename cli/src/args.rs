use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    self, completions, config, doctor, errors, flows, migrate, queues, schedules, stats, why, work, workers,
};
use crate::failure::CODES;
use crate::output::Format;

/// Runs, watches and repairs a job queue on any store.
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = CODES,
    after_long_help = concat!(
        "Examples:\n",
        "  leasehold --url sqlite:jobs.db jobs enqueue hello '{\"name\": \"Ann\"}'\n",
        "  export LEASEHOLD_URL=mongodb://127.0.0.1/jobs\n",
        "  leasehold queues list\n",
        "  leasehold work --queue default --exec ./handle.sh\n",
        "  leasehold why 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n\n",
        "Exit codes: 0 done, 1 failed or done in part, 2 wrong usage, 3 not found, 4 store unreachable, ",
        "5 conflict or lost."
    )
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The store: sqlite:FILE, mongodb://..., postgres://..., redis://... [environment: LEASEHOLD_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How data is printed [environment: LEASEHOLD_OUTPUT] [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// How long one call to the store may take, as 5s [environment: LEASEHOLD_TIMEOUT] [default: 5s]
    #[arg(long, global = true, value_name = "TIME")]
    pub(crate) timeout: Option<humantime::Duration>,
    /// The file of settings [environment: LEASEHOLD_CONFIG] [default: leasehold.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(subcommand)]
    Jobs(commands::jobs::Jobs),
    #[command(subcommand)]
    Queues(queues::Queues),
    #[command(subcommand)]
    Workers(workers::Workers),
    #[command(subcommand)]
    Schedules(schedules::Schedules),
    #[command(subcommand)]
    Flows(flows::Flows),
    Errors(errors::Errors),
    Stats(stats::Stats),
    Top(commands::top::Top),
    Why(why::Why),
    Work(work::Work),
    #[cfg(unix)]
    Pool(commands::pool::Pool),
    Dev(commands::dev::Dev),
    Bench(commands::bench::Bench),
    Copy(commands::transfer::Copy),
    Move(commands::transfer::Move),
    Doctor(doctor::Doctor),
    Migrate(migrate::Migrate),
    #[command(subcommand)]
    Config(config::Config),
    Completions(completions::Completions),
    Man(completions::Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The words of each example that a command's help gives.
    fn examples(command: &clap::Command) -> Vec<Vec<String>> {
        let help = command.get_after_long_help().or(command.get_after_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let begins = help.lines().filter_map(|line| line.trim().strip_prefix("leasehold "));
        let words = begins.map(|line| line.split(['|', '<', '>', '#']).next().unwrap_or_default());
        // One that goes on in the next line is an example of that.
        words.filter_map(shlex::split).collect()
    }

    fn check(path: &str, command: &clap::Command) {
        let (mut has_own, own) = (false, examples(command));
        for words in &own {
            let line = ["leasehold".to_owned()].into_iter().chain(words.iter().cloned());
            let parsed = Cli::try_parse_from(line);
            assert!(parsed.is_ok(), "an example of {path}: {}", parsed.unwrap_err());
            has_own = true;
        }
        let mut commands = command.get_subcommands().filter(|it| it.get_name() != "help").peekable();
        assert!(has_own || commands.peek().is_some(), "{path} has no example");
        commands.for_each(|it| check(&format!("{path} {}", it.get_name()), it));
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        let command = Cli::command();
        command.clone().debug_assert();
        check("leasehold", &command);
    }
}
