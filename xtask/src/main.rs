//! The chores of this workspace, as `cargo xtask CHORE`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod check;
mod kill;
mod run;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "The chores of this workspace")]
enum Chore {
    /// Runs every test: units, conformance in strict mode, documentation, examples
    Test,
    /// Runs what a change must pass beside the tests: format, lints, documentation, tidy, dependencies
    Check,
    /// Mends what can be mended by itself: format and lints
    Fix,
    /// Checks the rules of this house that no compiler knows
    Tidy,
    /// Kills processes that index files, again and again, and proves that nothing was lost or done twice
    Kill(kill::Options),
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Test => test::test(),
        Chore::Check => check::check(),
        Chore::Fix => check::fix(),
        Chore::Tidy => tidy::tidy(),
        Chore::Kill(options) => kill::kill(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("\nxtask: {trouble}");
            ExitCode::FAILURE
        }
    }
}
