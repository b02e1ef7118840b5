use std::process::Stdio;

use leasehold_peers_round::{Course, Round, Trouble};
use tokio::process::Command;

use super::Contestant;
use crate::options::{Peer, Store};

/// The program that plays, in a workspace of its own: one lock file cannot hold two versions of SQLite.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/effectum/Cargo.toml");

pub(super) fn contestants() -> Vec<Contestant> {
    let contestant = |config: &str, options: &'static [&'static str]| Contestant {
        peer: Peer::Effectum,
        store: Store::Sqlite,
        package: "effectum",
        config: config.into(),
        play: Box::new(move |file, course| Box::pin(elsewhere(file, course, options))),
    };
    vec![contestant("default, NORMAL", &[]), contestant("by halves, NORMAL", &["--by-halves"])]
}

/// Has a program of its own play, which is built when it is not there yet.
async fn elsewhere(file: String, course: Course, options: &[&str]) -> Result<Round, Trouble> {
    let told = |number: usize| number.to_string();
    let output = Command::new("cargo")
        .args(["run", "--quiet", "--release", "--locked", "--manifest-path", MANIFEST, "--"])
        .args(["--file", &file, "--jobs", &told(course.jobs), "--concurrency", &told(course.concurrency)])
        .args(["--limit", &course.limit.as_secs().to_string()])
        .args(options)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Err(format!("the program that plays ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
