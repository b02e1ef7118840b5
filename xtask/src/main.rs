//! The chores of this workspace, as `cargo xtask CHORE`.

mod check;
#[cfg(feature = "kill")]
mod kill;
mod run;
mod servers;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "The chores of this workspace")]
enum Chore {
    /// Brings the servers that tests need into target/servers, if this machine lacks them
    Servers,
    /// Runs every test: units, conformance in strict mode, documentation, examples
    Test,
    /// Runs what a change must pass beside the tests: format, lints, documentation, tidy, dependencies
    Check,
    /// Mends what can be mended by itself: format and lints
    Fix,
    /// Checks the rules of this house that no compiler knows
    Tidy,
    /// Kills processes that index files, again and again, and proves that nothing was lost or done twice
    Kill(KillOptions),
}

/// How much to kill.
#[derive(Parser)]
#[cfg_attr(not(feature = "kill"), allow(dead_code, reason = "read by the chore itself"))]
struct KillOptions {
    /// How many processes are killed in all
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// How many files are indexed in each round; a round ends when all are
    #[arg(long, default_value_t = 5_000)]
    files: u32,
    /// How many processes index them at once
    #[arg(long, default_value_t = 4)]
    processes: usize,
    /// Repeats the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Servers => servers::servers(),
        Chore::Test => test::test(),
        Chore::Check => check::check(),
        Chore::Fix => check::fix(),
        Chore::Tidy => tidy::tidy(),
        #[cfg(feature = "kill")]
        Chore::Kill(options) => kill::kill(&options),
        #[cfg(not(feature = "kill"))]
        Chore::Kill(_) => run::again_with("kill"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("\nxtask: {trouble}");
            ExitCode::FAILURE
        }
    }
}
