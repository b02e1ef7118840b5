use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use leasehold_peers_round::Course;
use strum::VariantArray;

/// Measures the Leasehold job queue beside other queues.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// On which stores. Defaults to all.
    #[arg(long, value_delimiter = ',')]
    store: Vec<Store>,
    /// Which queues beside Leasehold, which always takes part. Defaults to all.
    #[arg(long, value_delimiter = ',')]
    peer: Vec<Peer>,
    /// How many jobs a round takes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    jobs: u64,
    /// How many rounds; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// How many jobs may run at the same time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    concurrency: u64,
    /// How many seconds the jobs of a round may take. What was done by then counts, and no other round is played.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Where files are made; a server that is started has its own in `$TMPDIR`. Choose a real disk: one in memory
    /// has nothing to wait for.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) folder: PathBuf,
}

/// Where the jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, strum::Display, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Store {
    Memory,
    Sqlite,
    Postgres,
    Redis,
}

/// Whose queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Peer {
    Leasehold,
    Apalis,
    Effectum,
    Graphile,
}

impl Options {
    pub(crate) fn stores(&self) -> Vec<Store> {
        if self.store.is_empty() { Store::VARIANTS.to_vec() } else { self.store.clone() }
    }

    pub(crate) fn wants(&self, peer: Peer) -> bool {
        self.peer.is_empty() || peer == Peer::Leasehold || self.peer.contains(&peer)
    }

    pub(crate) fn course(&self) -> Course {
        Course {
            jobs: self.jobs as usize,
            concurrency: self.concurrency as usize,
            limit: Duration::from_secs(self.limit),
        }
    }
}
