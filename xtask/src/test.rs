use std::path::PathBuf;

use crate::run::{Trouble, cargo, cargo_with, output, root};

/// Where conformance runs write down how their cases went.
pub(crate) fn reports() -> PathBuf {
    root().join("target/conformance")
}

/// Makes conformance runs, of which nothing earlier is left. A store that cannot be tested is a failure, not a skip.
pub(crate) fn judge(runs: &[Vec<&str>]) -> Result<(), Trouble> {
    let folder = reports();
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let folder = folder.display().to_string();
    let judging = [("CONFORMANCE_STRICT", "1"), ("CONFORMANCE_REPORT", folder.as_str())];
    // What fails in one says nothing of the next.
    let outcomes: Vec<_> = runs.iter().map(|run| cargo_with(run, &judging)).collect();
    outcomes.into_iter().collect()
}

/// Runs every test there is.
pub(crate) fn test() -> Result<(), Trouble> {
    crate::servers::servers()?;
    if output(env!("CARGO"), &["nextest", "--version"]).is_some() {
        // A process for each test would start a server for each test.
        let with_server = ["leasehold-mongo", "leasehold-postgres", "leasehold-redis"];
        let mut most = vec!["nextest", "run", "--workspace", "--all-features", "--no-fail-fast"];
        let mut rest = vec!["test", "--all-features", "--tests", "--no-fail-fast"];
        for package in with_server {
            most.extend(["--exclude", package]);
            rest.extend(["--package", package]);
        }
        judge(&[most, rest])?;
    } else {
        eprintln!("cargo-nextest is not installed; `cargo test` does as well, only slower");
        judge(&[vec!["test", "--workspace", "--all-features", "--tests", "--no-fail-fast"]])?;
    }
    cargo(&["test", "--quiet", "--package", "leasehold", "--no-default-features", "--test", "facade"])?;
    cargo(&["test", "--workspace", "--all-features", "--doc"])?;
    examples()?;
    // The tables are of this very run.
    cargo(&["xtask", "matrix", "--last", "--check"])
}

/// Runs the examples, twice where a second run must find everything done.
fn examples() -> Result<(), Trouble> {
    cargo(&["run", "--quiet", "--example", "hello"])?;
    cargo(&["run", "--quiet", "--example", "flow"])?;
    for system in ["mtq", "mtq-scheduler", "mongoqueue", "pymjq", "tqueues", "mrq", "mrq-scheduler"] {
        let example = format!("coming-from-{system}");
        cargo(&["run", "--quiet", "--example", &example, "--features", "schedules"])?;
    }
    let file = root().join("target/xtask-index.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    let url = format!("sqlite:{}", file.display());
    let index = ["run", "--quiet", "--example", "index_files", "--", "core", "--url", &url];
    cargo(&index)?;
    cargo(&index)
}
