use std::io::{self, Write};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::CannotRun;

/// A wrong time of day for the processes that are started with [its environment](Self::environment): a library that
/// they preload, compiled by `cc` when a test needs it. On Linux alone.
#[derive(Debug)]
pub struct Skew {
    folder: TempDir,
}

const SOURCE: &str = include_str!("skew.c");

impl Skew {
    /// A clock that is off by so many milliseconds.
    ///
    /// # Errors
    /// [`CannotRun::Missing`] without Linux or a C compiler.
    pub fn new(millis: i64) -> Result<Self, CannotRun> {
        if !cfg!(target_os = "linux") {
            return Err(CannotRun::missing("clocks are skewed on Linux alone"));
        }
        let missing = |error: io::Error| CannotRun::missing(format!("no skewed clock: {error}"));
        let skew = Self { folder: tempfile::tempdir().map_err(missing)? };
        skew.set(millis).and_then(|()| skew.compile()).map_err(missing)?;
        Ok(skew)
    }

    /// Steps the clock of all processes that have it: from now on it is off by so many milliseconds.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn set(&self, millis: i64) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        // Not cut short: the processes have it mapped.
        let mut file =
            options.create(true).write(true).truncate(false).open(self.folder.path().join("millis"))?;
        file.write_all(&millis.to_ne_bytes())
    }

    /// What a process needs in its environment to have this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![("LD_PRELOAD".into(), path("skew.so")), ("CONFORMANCE_SKEW".into(), path("millis"))]
    }

    fn compile(&self) -> io::Result<()> {
        let source = self.folder.path().join("skew.c");
        std::fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(self.folder.path().join("skew.so"))
            .arg(&source)
            .output()
            .map_err(|error| io::Error::other(format!("`cc` does not run: {error}")))?;
        let told = String::from_utf8_lossy(&compiled.stderr);
        compiled.status.success().then_some(()).ok_or_else(|| io::Error::other(told.into_owned()))
    }
}
