//! Whether the law notices when a line of the store in memory is changed.

use std::path::Path;
use std::process::Command;

use crate::run::{Trouble, output, root};

/// The files in which no change may go unnoticed. What a settlement makes of a job is the core's.
const STRICT: [&str; 5] = [
    "backend-memory/src/claim.rs",
    "backend-memory/src/renew.rs",
    "backend-memory/src/settle.rs",
    "backend-memory/src/recover.rs",
    "core/src/job/transition.rs",
];
/// Other files that are changed, to show what the suite does not look at.
const OTHERS: [&str; 4] = [
    "backend-memory/src/enqueue.rs",
    "backend-memory/src/record.rs",
    "backend-memory/src/control.rs",
    "backend-memory/src/store.rs",
];

/// Changes one line after the other and lets the conformance suite judge each; `.cargo/mutants.toml` says which
/// changes are left out, and why.
pub(crate) fn mutants() -> Result<(), Trouble> {
    if output(env!("CARGO"), &["mutants", "--version"]).is_none() {
        return Err("cargo-mutants is not installed: `cargo install --locked cargo-mutants`".into());
    }
    let folder = root().join("target");
    let mut command = Command::new(env!("CARGO"));
    command.args(["mutants", "--package", "leasehold-memory", "--package", "leasehold-core"]);
    command.args(["--test-package", "leasehold-memory", "--timeout", "120", "--no-shuffle", "--output"]);
    command.arg(&folder);
    for file in STRICT.iter().chain(&OTHERS) {
        command.args(["--file", file]);
    }
    command.args(["--", "--test", "conformance"]);
    // Nobody debugs them, and they build faster.
    command.current_dir(root()).env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    // What sequences show they show soon.
    command.env("CONFORMANCE_CASES", "200");
    eprintln!("\n== {command:?}");
    match command.status()?.code() {
        // All were caught; some were not; some took too long.
        Some(0 | 2 | 3) => report(&folder.join("mutants.out")),
        _ => Err("cargo-mutants could not do its work".into()),
    }
}

/// Tells how it went, from the lists that cargo-mutants left.
fn report(folder: &Path) -> Result<(), Trouble> {
    let [caught, missed, timeout, unviable] =
        ["caught", "missed", "timeout", "unviable"].map(|list| lines(&folder.join(format!("{list}.txt"))));
    println!(
        "{} changes: {} caught, {} missed, {} that never end, {} that do not build",
        caught.len() + missed.len() + timeout.len() + unviable.len(),
        caught.len(),
        missed.len(),
        timeout.len(),
        unviable.len()
    );
    missed.iter().for_each(|change| println!("  missed: {change}"));
    if caught.is_empty() {
        return Err("no change was caught: something is wrong with the run itself".into());
    }
    let grave = missed.iter().filter(|change| STRICT.iter().any(|file| change.starts_with(file)));
    match grave.count() {
        0 => Ok(()),
        count => Err(format!("{count} changes of {} went unnoticed", STRICT.join(", ")).into()),
    }
}

/// The lines of a list; none if nothing was written.
fn lines(list: &Path) -> Vec<String> {
    std::fs::read_to_string(list).unwrap_or_default().lines().map(str::to_owned).collect()
}
