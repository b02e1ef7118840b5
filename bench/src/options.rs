use std::path::PathBuf;

use clap::Parser;
use strum::VariantArray;

use crate::child::Child;
use crate::stores::Kind;
use crate::workloads::Name;

/// Measures how fast the stores of the Leasehold job queue are.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// How many jobs a round takes; with small batches no more than a thousand batches of them.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) jobs: u64,
    /// How many rounds; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Only these workloads.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<Name>,
    /// Which stores of this workspace. Defaults to all.
    #[arg(long, value_delimiter = ',')]
    pub(crate) backend: Vec<Kind>,
    /// How many enqueue, and then claim and settle, at the same time; several are measured in turn.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) claimers: Vec<u64>,
    /// How many jobs one call takes; several are measured in turn.
    #[arg(long, value_delimiter = ',', default_value = "500", value_parser = clap::value_parser!(u64).range(1..=4_000))]
    pub(crate) batch: Vec<u64>,
    /// Over how many processes those who claim from a backend are spread; what it is compared with stays in one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) processes: u64,
    /// How many jobs the largest store of `flat` holds.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) most: u64,
    /// How often an idle worker is woken.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) wakes: u64,
    /// One round of 10,000 jobs, at most 10,000 in a store, 50 wakes: to see that all works, not to compare.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where files are made; a server that is started has its own in `$TMPDIR`. Choose a real disk: one in memory
    /// has nothing to wait for.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) folder: PathBuf,
    /// What cargo tells every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// What a process of such a run does that another one started.
    #[command(subcommand)]
    pub(crate) child: Option<Child>,
}

impl Options {
    /// How many jobs a round takes with such batches.
    pub(crate) fn jobs(&self, batch: usize) -> usize {
        let jobs = if self.quick { 10_000 } else { self.jobs as usize };
        jobs.min(1_000 * batch)
    }

    pub(crate) fn rounds(&self) -> u64 {
        if self.quick { 1 } else { self.rounds }
    }

    pub(crate) fn most(&self) -> usize {
        if self.quick { 10_000 } else { self.most as usize }
    }

    pub(crate) fn wakes(&self) -> u64 {
        if self.quick { 50 } else { self.wakes }
    }

    pub(crate) fn claimers(&self) -> impl Iterator<Item = usize> {
        self.claimers.iter().map(|claimers| *claimers as usize)
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = usize> {
        self.batch.iter().map(|batch| *batch as usize)
    }

    pub(crate) fn wants(&self, name: Name) -> bool {
        self.only.is_empty() || self.only.contains(&name)
    }

    /// The backends to measure, and what they are compared with.
    pub(crate) fn stores(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.backend.contains(&kind.backend());
        Kind::VARIANTS.iter().copied().filter(wanted).collect()
    }

    /// The backends to measure.
    pub(crate) fn backends(&self) -> Vec<Kind> {
        self.stores().into_iter().filter(|kind| kind.backend() == *kind).collect()
    }
}
