//! The chores of this workspace, as `cargo xtask CHORE`.

mod check;
mod excerpts;
mod failpoints;
#[cfg(feature = "kill")]
mod history;
#[cfg(feature = "kill")]
mod kill;
mod links;
#[cfg(feature = "matrix")]
mod matrix;
mod mutants;
mod run;
mod servers;
#[cfg(feature = "soak")]
mod soak;
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
    /// Judges every backend, prints which clauses it keeps, and writes the tables of the documentation
    Matrix(MatrixOptions),
    /// Changes lines of the store in memory, one at a time, and tells which changes the law does not notice
    Mutants,
    /// Kills processes that index files, again and again, and proves that nothing was lost or done twice
    Kill(KillOptions),
    /// Kills workers and servers under load, and proves that nothing was lost or done twice
    Soak(SoakOptions),
    /// Is a worker of `soak`
    #[command(hide = true)]
    SoakWorker(SoakWorker),
}

/// What to make tables of, and what to do with them.
#[derive(Parser)]
#[cfg_attr(not(feature = "matrix"), allow(dead_code, reason = "read by the chore itself"))]
struct MatrixOptions {
    /// Writes nothing; fails if the documentation says otherwise
    #[arg(long)]
    check: bool,
    /// Takes what the latest run of `test` or of this chore found, and judges nothing
    #[arg(long)]
    last: bool,
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

/// How long to break things, and how often.
#[derive(Parser)]
#[cfg_attr(not(feature = "soak"), allow(dead_code, reason = "read by the chore itself"))]
struct SoakOptions {
    /// What the jobs are kept in
    #[arg(long, value_enum, default_value_t = SoakStore::Mongo)]
    store: SoakStore,
    /// For how many seconds things are broken
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// How many jobs are enqueued, evenly over that time
    #[arg(long, default_value_t = 200_000)]
    jobs: u64,
    /// How many worker processes there are
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// How often a worker is killed, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    kill_every: u64,
    /// How often a worker is frozen, for longer than its leases, in seconds
    #[arg(long, default_value_t = 10)]
    freeze_every: u64,
    /// How often the server is killed and started again, in seconds
    #[arg(long, default_value_t = 20)]
    server_every: u64,
    /// Repeats the choices of an earlier run, though not what the machine made of them
    #[arg(long)]
    seed: Option<u64>,
}

/// On which servers there is a soak.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SoakStore {
    /// Three nodes; the one that is killed is the primary
    Mongo,
    Postgres,
    /// With an append-only file that is synced with every write
    Redis,
}

/// What a worker of `soak` is told.
#[derive(Parser)]
#[cfg_attr(not(feature = "soak"), allow(dead_code, reason = "read by the chore itself"))]
struct SoakWorker {
    #[arg(long)]
    url: String,
    #[arg(long)]
    history: std::path::PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Servers => servers::servers(),
        Chore::Test => test::test(),
        Chore::Check => check::check(),
        Chore::Fix => check::fix(),
        Chore::Tidy => tidy::tidy(),
        #[cfg(feature = "matrix")]
        Chore::Matrix(options) => matrix::matrix(&options),
        #[cfg(not(feature = "matrix"))]
        Chore::Matrix(_) => run::again_with(&["--features", "matrix"]),
        Chore::Mutants => mutants::mutants(),
        #[cfg(feature = "kill")]
        Chore::Kill(options) => kill::kill(&options),
        #[cfg(not(feature = "kill"))]
        Chore::Kill(_) => run::again_with(&["--release", "--features", "kill"]),
        #[cfg(feature = "soak")]
        Chore::Soak(options) => soak::soak(&options),
        #[cfg(feature = "soak")]
        Chore::SoakWorker(told) => soak::work(&told.url, &told.history),
        #[cfg(not(feature = "soak"))]
        Chore::Soak(_) | Chore::SoakWorker(_) => run::again_with(&["--release", "--features", "soak"]),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("\nxtask: {trouble}");
            ExitCode::FAILURE
        }
    }
}
