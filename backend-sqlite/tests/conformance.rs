//! The law, judged on files in a temporary folder: one file per place, one handle with connections of its own per
//! opening.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::{Backend, Deadline};
use leasehold_sqlite::{Config, Sqlite};
use tempfile::TempDir;

struct InFiles(TempDir);

#[async_trait]
impl Harness for InFiles {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let file = self.0.path().join(&place.name);
        let config = Config::new(file);
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Sqlite::with(config).await?;
        store.setup(Deadline::default()).await?;
        Ok(Arc::new(store))
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(InFiles(tempfile::tempdir().expect("a folder for temporary files")))
}
