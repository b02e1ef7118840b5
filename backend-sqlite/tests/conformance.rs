//! The law, judged on files in a temporary folder: one file per place, one handle with connections of its own per
//! opening.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Reach, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_sqlite::{Config, Sqlite};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
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

impl InFiles {
    fn file(&self, place: &Place) -> PathBuf {
        self.folder.join(&place.name)
    }

    fn config(&self, place: &Place) -> Config {
        place.on_clock(Config::new(self.file(place)), Config::clock)
    }

    /// A connection of somebody else's.
    async fn connection(&self, place: &Place) -> Result<SqliteConnection, CannotRun> {
        SqliteConnectOptions::new().filename(self.file(place)).connect().await.map_err(missing)
    }
}

/// What we do to the file by another connection says nothing of the backend.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn missing(error: sqlx::Error) -> CannotRun {
    CannotRun::missing(format!("a connection to the file: {error}"))
}

async fn set_up(config: Config) -> Result<Sqlite, CannotRun> {
    let store = Sqlite::with(config).await?;
    store.setup(Deadline::default()).await?;
    Ok(store)
}

#[async_trait]
impl Harness for InFiles {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(set_up(self.config(place)).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let mut theirs = self.connection(place).await?;
        let damage = sqlx::query("UPDATE leasehold_jobs SET options = '{' WHERE id = ?").bind(*job.as_uuid());
        damage.execute(&mut theirs).await.map(drop).map_err(missing)
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let store = set_up(self.config(place).busy_timeout(Duration::from_millis(200))).await?;
        Ok(Far { backend: Arc::new(store), reach: Box::new(Lock(self.connection(place).await?)) })
    }

    async fn enqueue_in_transaction(
        &self,
        place: &Place,
        jobs: Vec<NewJob>,
        commit: bool,
    ) -> Result<(), CannotRun> {
        let store = set_up(self.config(place)).await?;
        let mut theirs = self.connection(place).await?;
        let mut transaction = theirs.begin_with("BEGIN IMMEDIATE").await.map_err(missing)?;
        store.enqueue_in(&mut transaction, jobs).await?;
        let done = if commit { transaction.commit().await } else { transaction.rollback().await };
        done.map_err(missing)
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(FOLDER.into(), self.folder.display().to_string())])
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

/// Somebody else's lock on the file: as long as it is held, nobody can write.
#[derive(Debug)]
struct Lock(SqliteConnection);

#[async_trait]
impl Reach for Lock {
    async fn cut(&mut self) -> Result<(), CannotRun> {
        self.0.execute("BEGIN EXCLUSIVE").await.map(drop).map_err(missing)
    }

    async fn mend(&mut self) -> Result<(), CannotRun> {
        self.0.execute("ROLLBACK").await.map(drop).map_err(missing)
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(InFiles::find())
}
