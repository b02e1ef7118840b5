//! Measures how fast the stores of the Leasehold job queue are, beside the limit of each, in one run on one
//! machine:
//!
//! ```text
//! cargo run --release -p leasehold-bench -- --quick
//! cargo run --release -p leasehold-bench -- --backend mongo --claimers 1,4,16,64 --batch 500,100
//! ```
//!
//! Each number is the median of some rounds, each in a store of its own. The limit of a store is what bare
//! batches of its own driver reach with the same rows or documents, in a file or collection of their own with the
//! same settings. Round trips are commands that the server counted, where there is one; else calls of the contract's
//! methods.

mod aims;
mod child;
mod counted;
mod limits;
mod options;
mod report;
mod sample;
mod server;
mod stores;
mod target;
mod workloads;

use std::error::Error;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use self::options::Options;
use self::report::Report;
use self::stores::Stores;
use self::workloads::{Name, flat, idle, rounds, wake, worker};

/// What ends a run: an error of a store, a driver or a file.
pub(crate) type Trouble = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Trouble> {
    let options = Options::parse();
    if let Some(child) = &options.child {
        return child.play().await;
    }
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}")?);
    progress.enable_steady_tick(std::time::Duration::from_millis(100));

    let stores = Stores::new(options.folder.clone());
    let mut report = Report::default();
    if [Name::Enqueue, Name::ClaimSettle, Name::EndToEnd].into_iter().any(|name| options.wants(name)) {
        rounds::run(&options, &stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Flat) {
        flat::run(&options, &stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Worker) {
        worker::run(&options, &stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Wake) {
        wake::run(&options, &stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Idle) {
        idle::run(&options, &stores, &progress, &mut report).await?;
    }
    progress.finish_and_clear();
    report.print(&options)?;
    Ok(())
}
