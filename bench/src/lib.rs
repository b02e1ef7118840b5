//! Measures how fast a store of the Leasehold job queue is, in one run on one machine.
//!
//! Of the stores of this workspace, each beside its limit:
//!
//! ```text
//! cargo run --release -p leasehold-bench -- --quick
//! cargo run --release -p leasehold-bench -- --backend mongo --claimers 1,4,16,64 --batch 500,100
//! ```
//!
//! Of any other store, beside the one in memory: the [`Harness`] that has it judged by the conformance suite has it
//! measured too, by a target with `harness = false` that calls [`main`].
//!
//! Each number is the median of some rounds, each in a store of its own. The limit of a store is what bare
//! batches of its own driver reach with the same rows or documents, in a file or collection of their own with the
//! same settings; that of a stranger's store is the store in memory, which has nothing to wait for. Round trips are
//! commands that the server counted, where there is one; else calls of the contract's methods, where each is known to
//! be one.

mod aims;
mod child;
mod counted;
#[cfg(feature = "stores")]
mod limits;
mod options;
#[cfg(feature = "stores")]
mod ours;
mod report;
mod sample;
#[cfg(feature = "stores")]
mod server;
mod stores;
mod target;
mod work;
mod workloads;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use leasehold_conformance::Harness;

use self::options::Options;
use self::report::Report;
use self::stores::{Kind, Stores};
use self::workloads::{Name, flat, idle, keys, raw, rounds, wake, worker};

/// What ends a run: an error of a store, a driver or a file.
pub(crate) type Trouble = Box<dyn Error + Send + Sync>;

/// Measures the store that `harness` opens, beside the one in memory: the `main` of a target with `harness = false`.
///
/// The store goes by its own clock: `Place::clock` is none. `--help` shows what can be chosen.
pub fn main(harness: impl Harness) -> ExitCode {
    let mut options = Options::parse();
    if !options.backend.is_empty() || options.processes > 1 {
        return end(Err("--backend and --processes are for the stores of this workspace".into()));
    }
    options.backend = vec![Kind::Given, Kind::Memory];
    let stores = Stores::new(options.folder.clone(), Some(Arc::new(harness)));
    end(block_on(measure(&options, &stores)))
}

/// Measures the stores of this workspace.
#[cfg(feature = "stores")]
pub fn main_on_ours() -> ExitCode {
    let mut options = Options::parse();
    if options.backend.is_empty() {
        options.backend = vec![Kind::Memory, Kind::Sqlite, Kind::Mongo, Kind::Postgres, Kind::Redis];
    }
    if let Some(child) = &options.child {
        return end(block_on(child.play()));
    }
    let stores = Stores::new(options.folder.clone(), None);
    end(block_on(measure(&options, &stores)))
}

fn block_on(run: impl Future<Output = Result<(), Trouble>>) -> Result<(), Trouble> {
    tokio::runtime::Runtime::new()?.block_on(run)
}

fn end(outcome: Result<(), Trouble>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options, stores: &Stores) -> Result<(), Trouble> {
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}")?);
    progress.enable_steady_tick(std::time::Duration::from_millis(100));

    let mut report = Report::default();
    if [Name::Enqueue, Name::ClaimSettle, Name::EndToEnd].into_iter().any(|name| options.wants(name)) {
        rounds::run(options, stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Flat) {
        flat::run(options, stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Keys) {
        keys::run(options, stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Worker) {
        worker::run(options, stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Raw) {
        raw::run(options, stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Wake) {
        wake::run(options, stores, &progress, &mut report).await?;
    }
    if options.wants(Name::Idle) {
        idle::run(options, stores, &progress, &mut report).await?;
    }
    #[cfg(feature = "stores")]
    if options.only.contains(&Name::Bloat) {
        workloads::bloat::run(options, stores, &progress, &mut report).await?;
    }
    progress.finish_and_clear();
    report.print(options)?;
    Ok(())
}
