use crate::run::{Trouble, cargo, cargo_with, output};

/// A store that cannot be tested is a failure, not a skip.
const STRICT: &[(&str, &str)] = &[("CONFORMANCE_STRICT", "1")];

/// Runs every test there is.
pub(crate) fn test() -> Result<(), Trouble> {
    crate::servers::servers()?;
    if output(env!("CARGO"), &["nextest", "--version"]).is_some() {
        // A process for each test would start a server for each test.
        let with_server = "leasehold-mongo";
        let nextest = ["nextest", "run", "--workspace", "--all-features", "--no-fail-fast"];
        cargo_with(&[&nextest[..], &["--exclude", with_server]].concat(), STRICT)?;
        cargo_with(
            &["test", "--package", with_server, "--all-features", "--tests", "--no-fail-fast"],
            STRICT,
        )?;
    } else {
        eprintln!("cargo-nextest is not installed; `cargo test` does as well, only slower");
        cargo_with(&["test", "--workspace", "--all-features", "--tests", "--no-fail-fast"], STRICT)?;
    }
    cargo(&["test", "--quiet", "--package", "leasehold", "--no-default-features", "--test", "facade"])?;
    cargo(&["test", "--workspace", "--all-features", "--doc"])?;
    examples()
}

/// Runs the examples, twice where a second run must find everything done.
fn examples() -> Result<(), Trouble> {
    cargo(&["run", "--quiet", "--example", "hello"])?;
    let file = crate::run::root().join("target/xtask-index.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    let url = format!("sqlite:{}", file.display());
    let index = ["run", "--quiet", "--example", "index_files", "--", "core", "--url", &url];
    cargo(&index)?;
    cargo(&index)
}
