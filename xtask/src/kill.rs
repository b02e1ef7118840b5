use clap::Args;

use crate::run::{Trouble, cargo};

/// Where and how often to kill.
#[derive(Args)]
pub(crate) struct Options {
    /// How often to kill
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// How many files to index
    #[arg(long, default_value_t = 5_000)]
    files: u32,
    /// How many processes index them
    #[arg(long, default_value_t = 4)]
    processes: u32,
}

/// Kills indexing processes.
pub(crate) fn kill(options: &Options) -> Result<(), Trouble> {
    let _ = (options.kills, options.files, options.processes);
    cargo(&["build", "--release", "--example", "index_files"])
}
