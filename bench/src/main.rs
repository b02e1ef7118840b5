//! Measures how fast the stores of the Leasehold job queue are, beside the limit of each, in one run on one
//! machine:
//!
//! ```text
//! cargo run --release -p leasehold-bench -- --quick
//! ```
//!
//! Each number is the median of some rounds, each in a store of its own. The limit of a store is what bare
//! batches of its own driver reach with the same rows, on a file of their own with the same settings. Round
//! trips are calls of the contract's methods, counted exactly.

mod counted;
mod options;
mod raw;
mod report;
mod sample;
mod stores;
mod target;
mod workloads;

use std::error::Error;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use self::options::Options;
use self::report::Report;
use self::workloads::{flat, run_in_rounds, worker};

/// What ends a run: an error of a store, a driver or a file.
pub(crate) type Trouble = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Trouble> {
    let options = Options::parse();
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}")?);
    progress.enable_steady_tick(std::time::Duration::from_millis(100));

    let mut report = Report::default();
    for workload in options.workloads() {
        match workload {
            workloads::Name::Flat => flat::run(&options, &progress, &mut report).await?,
            workloads::Name::Worker => worker::run(&options, &progress, &mut report).await?,
            name => run_in_rounds(name, &options, &progress, &mut report).await?,
        }
    }
    progress.finish_and_clear();
    report.print(&options)?;
    Ok(())
}
