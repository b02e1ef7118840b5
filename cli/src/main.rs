//! The `leasehold` command: runs, watches and repairs a queue on any store.
//!
//! What a command prints to its standard output is data, and only that; what it says of its work goes to the standard error.

mod args;
mod bulk;
mod commands;
mod config;
mod failure;
mod jobs;
mod output;
mod selection;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::failure::{Failure, USAGE};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that was asked for is data, and a reader may go away in the middle of it.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => Err(Failure::failed(format!("no threads could be started: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
