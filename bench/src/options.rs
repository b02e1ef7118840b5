use std::path::PathBuf;

use clap::Parser;
use strum::VariantArray;

use crate::stores::Kind;
use crate::workloads::Name;

/// Measures how fast the stores of the Leasehold job queue are.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// How many jobs a round takes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) jobs: u64,
    /// How many rounds; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Only this workload; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<Name>,
    /// Which stores.
    #[arg(long, default_value = "all")]
    pub(crate) backend: Choice,
    /// One round of 10,000 jobs, and at most 10,000 in a store: to see that all works, not to compare.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where files are made. Choose a real disk: one in memory has nothing to wait for.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) folder: PathBuf,
}

/// One store or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    Memory,
    Sqlite,
    All,
}

impl Options {
    pub(crate) fn jobs(&self) -> usize {
        if self.quick { 10_000 } else { self.jobs as usize }
    }

    pub(crate) fn rounds(&self) -> u64 {
        if self.quick { 1 } else { self.rounds }
    }

    /// How many jobs the largest store of `flat` holds.
    pub(crate) fn most(&self) -> usize {
        if self.quick { 10_000 } else { 1_000_000 }
    }

    pub(crate) fn workloads(&self) -> Vec<Name> {
        let wanted = |name: &Name| self.only.is_empty() || self.only.contains(name);
        Name::VARIANTS.iter().copied().filter(wanted).collect()
    }

    pub(crate) fn stores(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| match self.backend {
            Choice::Memory => *kind == Kind::Memory,
            Choice::Sqlite => *kind != Kind::Memory,
            Choice::All => true,
        };
        Kind::VARIANTS.iter().copied().filter(wanted).collect()
    }
}
