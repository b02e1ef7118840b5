//! Opens folders in a temporary one: one per place, and a handle of its own per opening, which shares nothing with the
//! others but the files, as another process would.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend_files::Files;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::{Backend, Deadline};
use tempfile::TempDir;

pub(crate) struct InFolders(TempDir);

impl InFolders {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for temporary files"))
    }
}

#[async_trait]
impl Harness for InFolders {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let files = Files::open(self.0.path().join(&place.name));
        let files = match &place.clock {
            Some(clock) => files.clock(clock.clone()),
            None => files,
        };
        files.setup(Deadline::default()).await?;
        Ok(Arc::new(files))
    }
}
