//! Opens folders in a temporary one: one per place, and a handle of its own per opening, which shares nothing with the
//! others but the files, as another process would.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend_files::Files;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::{Backend, Deadline};
use tempfile::TempDir;

/// Where another process of this program finds the folders.
const FOLDER: &str = "LEASEHOLD_CONFORMANCE_FOLDER";

pub(crate) struct InFolders {
    folder: PathBuf,
    /// Gone with this process, if it is the one that made it.
    _made: Option<TempDir>,
}

impl InFolders {
    pub(crate) fn new() -> Self {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return Self { folder: folder.into(), _made: None };
        }
        let made = tempfile::tempdir().expect("a folder for temporary files");
        Self { folder: made.path().into(), _made: Some(made) }
    }
}

#[async_trait]
impl Harness for InFolders {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let files = Files::open(self.folder.join(&place.name));
        let files = match &place.clock {
            Some(clock) => files.clock(clock.clone()),
            None => files,
        };
        files.setup(Deadline::default()).await?;
        Ok(Arc::new(files))
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(FOLDER.into(), self.folder.display().to_string())])
    }
}
