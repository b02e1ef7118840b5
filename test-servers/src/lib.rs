//! Real servers for tests and benchmarks: found on this machine, started on a free port of 127.0.0.1 with small
//! caches and a temporary folder, and gone with the process that started them, also when it is killed.
//!
//! ```no_run
//! let server = leasehold_test_servers::Mongo::replica_set(1)?;
//! println!("{}", server.url());
//! # Ok::<(), leasehold_test_servers::Missing>(())
//! ```
//!
//! A server is looked for in the environment, on the PATH, in [`folder`], and with the feature `container` in a
//! container. What is to be broken is always one of our own: its [`Node`]s are killed, frozen and started again,
//! and a [`Proxy`] is a wire to any server that can be cut.

mod certificates;
mod container;
pub mod harness;
mod mongo;
mod node;
mod postgres;
mod process;
mod proxy;
mod redis;
pub mod verbs;

use std::fmt;
use std::path::{Path, PathBuf};

pub use certificates::Certificates;
pub use mongo::Mongo;
pub use node::Node;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::Redis;

/// What brings every server that tests need.
const HELPS: &str = "`cargo xtask servers` brings what is needed";

/// No server could be had: what was tried, and what helps.
#[derive(Debug)]
pub struct Missing {
    tried: Vec<String>,
    helps: Vec<String>,
}

impl Missing {
    pub(crate) fn new(tried: Vec<String>, helps: impl Into<String>) -> Self {
        Self { tried, helps: vec![helps.into()] }
    }

    /// What `cargo xtask servers` helps against.
    pub(crate) fn here(tried: String) -> Self {
        Self::new(vec![tried], HELPS)
    }

    /// Says what was tried before.
    pub(crate) fn before(mut self, tried: String) -> Self {
        self.tried.insert(0, tried);
        self
    }

    /// Says what was tried afterwards.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.tried.extend(other.tried);
        self.helps.extend(other.helps);
        self
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no server: {}; {}", self.tried.join("; "), self.helps.join("; "))
    }
}

impl std::error::Error for Missing {}

/// The folder into which `cargo xtask servers` puts programs.
pub fn folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    workspace.join("target").join("servers")
}

/// A program on the PATH or in [`folder`].
pub(crate) fn program(name: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    found(name, std::env::split_paths(&path), &folder())
}

fn found(name: &str, path: impl Iterator<Item = PathBuf>, own: &Path) -> Result<PathBuf, Missing> {
    let found = path.chain([own.to_path_buf()]).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| {
        let tried =
            vec![format!("no `{name}` is on the PATH"), format!("none is at {}", own.join(name).display())];
        Missing::new(tried, HELPS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_all_that_was_tried() {
        let nowhere = found("mongod", std::iter::empty(), Path::new("/nowhere")).expect_err("nothing there");
        let contained = container::Container::run(("no/such/image", "0"), 1, &[], "ready").expect_err("none");
        let told = nowhere.before("THE_URL is not set".into()).and(contained).to_string();
        for tried in
            ["THE_URL is not set", "on the PATH", "at /nowhere/mongod", "no container of no/such/image:0"]
        {
            assert!(told.contains(tried), "{told}");
        }
        assert!(told.contains("; `cargo xtask servers` brings what is needed"), "{told}");
    }
}
