//! Opens folders in a temporary one: one per place, and a handle of its own per opening, which shares nothing with the
//! others but the files, as another process would.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend_files::Files;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Reach, Step};
use leasehold_core::{Backend, Deadline, JobId};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// Where another process of this program finds the folders.
const FOLDER: &str = "LEASEHOLD_CONFORMANCE_FOLDER";

/// Every write is one line of the journal, under the lock. A process that ends leaves what it has written, synced or not.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("commit::before_write", Effect::None, Step::ALL).others_wait(),
    CutPoint::new("commit::half_written", Effect::None, Step::ALL).others_wait(),
    CutPoint::new("commit::written", Effect::All, Step::ALL).others_wait(),
    CutPoint::new("commit::synced", Effect::All, Step::ALL).others_wait(),
];

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
        let files = place.on_clock(Files::open(self.folder.join(&place.name)), Files::clock);
        files.setup(Deadline::default()).await?;
        Ok(Arc::new(files))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        damage(self.folder.join(&place.name).join("journal"), job).map_err(missing)
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let lock = self.folder.join(&place.name).join("lock");
        Ok(Far { backend: self.open(place).await?, reach: Box::new(Lock { lock, held: None }) })
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(FOLDER.into(), self.folder.display().to_string())])
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

/// Makes each record of a job unreadable. The journal gets another id, as one that was written anew, so that also those
/// who have read it read it again.
fn damage(journal: PathBuf, job: JobId) -> io::Result<()> {
    let text = std::fs::read_to_string(&journal)?;
    let mut lines = text.lines();
    let mut head: Value = serde_json::from_str(lines.next().unwrap_or_default())?;
    head["id"] = json!(Uuid::new_v4());
    let (mut damaged, mut found) = (format!("{head}\n"), false);
    for line in lines {
        let (_, changes) = line.split_once(' ').unwrap_or_default();
        let mut changes: Vec<Value> = serde_json::from_str(changes)?;
        for record in changes.iter_mut().filter_map(|change| change.pointer_mut("/Job/job")) {
            if record["id"] == json!(job) {
                record["state"] = json!("exploded");
                found = true;
            }
        }
        let changes = json!(changes).to_string();
        damaged += &format!("{:08x} {changes}\n", crc32fast::hash(changes.as_bytes()));
    }
    if found { std::fs::write(journal, damaged) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// What we do to the files ourselves says nothing of the backend.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn missing(error: io::Error) -> CannotRun {
    CannotRun::missing(format!("a way to the files: {error}"))
}

/// Somebody else's lock: as long as it is held, nobody can read or write.
#[derive(Debug)]
struct Lock {
    lock: PathBuf,
    held: Option<File>,
}

#[async_trait]
impl Reach for Lock {
    async fn cut(&mut self) -> Result<(), CannotRun> {
        let file = File::open(&self.lock).map_err(missing)?;
        // Whoever has the lock works in a thread of its own, and needs none of ours to come to its end.
        file.lock().map_err(missing)?;
        self.held = Some(file);
        Ok(())
    }

    async fn mend(&mut self) -> Result<(), CannotRun> {
        self.held = None;
        Ok(())
    }
}
