//! Real servers for tests and benchmarks: found on this machine, started on a free port of 127.0.0.1 with small
//! caches and a temporary folder, and gone with the process that started them, also when it is killed.
//!
//! ```no_run
//! let server = leasehold_test_servers::Mongo::replica_set(1)?;
//! println!("{}", server.url());
//! # Ok::<(), leasehold_test_servers::Missing>(())
//! ```

mod mongo;
mod process;

use std::fmt;
use std::path::{Path, PathBuf};

pub use mongo::Mongo;

/// No server could be had: what was tried, and what helps.
#[derive(Debug)]
pub struct Missing {
    tried: Vec<String>,
    helps: String,
}

impl Missing {
    pub(crate) fn new(tried: Vec<String>, helps: impl Into<String>) -> Self {
        Self { tried, helps: helps.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no server: {}; {}", self.tried.join("; "), self.helps)
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
    let folders = std::env::split_paths(&path).chain([folder()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| {
        let tried = vec![
            format!("no `{name}` is on the PATH"),
            format!("none is at {}", folder().join(name).display()),
        ];
        Missing::new(tried, "`cargo xtask servers` brings one")
    })
}
