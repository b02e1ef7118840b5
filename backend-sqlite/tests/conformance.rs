//! The law, judged on files in a temporary folder: one file per place, one handle with connections of its own per
//! opening.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Harness, Place, Step};
use leasehold_core::{Backend, Deadline};
use leasehold_sqlite::{Config, Sqlite};
use tempfile::TempDir;

/// Where another process of this program finds the files.
const FOLDER: &str = "LEASEHOLD_CONFORMANCE_FOLDER";

/// Every write is one transaction of the one writer.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("write::after_send", Effect::None, Step::ALL).others_wait(),
    CutPoint::new("write::applied", Effect::None, Step::ALL).others_wait(),
    CutPoint::new("write::acted", Effect::All, Step::ALL),
];

struct InFiles {
    folder: PathBuf,
    /// Gone with this process, if it is the one that made it.
    _made: Option<TempDir>,
}

impl InFiles {
    fn find() -> Self {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return Self { folder: folder.into(), _made: None };
        }
        let made = tempfile::tempdir().expect("a folder for temporary files");
        Self { folder: made.path().into(), _made: Some(made) }
    }
}

#[async_trait]
impl Harness for InFiles {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let file = self.folder.join(&place.name);
        let config = Config::new(file);
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Sqlite::with(config).await?;
        store.setup(Deadline::default()).await?;
        Ok(Arc::new(store))
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(FOLDER.into(), self.folder.display().to_string())])
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(InFiles::find())
}
