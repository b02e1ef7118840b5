use std::path::Path;

use leasehold_core::{Backend, Deadline};
use leasehold_memory::Memory;
use leasehold_sqlite::Sqlite;
use tempfile::TempDir;

use crate::Trouble;
use crate::counted::Counted;
use crate::raw::RawSqlite;
use crate::target::{PATIENCE, Target};

/// What can be measured, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::VariantArray)]
pub(crate) enum Kind {
    #[strum(to_string = "memory")]
    Memory,
    #[strum(to_string = "sqlite")]
    Sqlite,
    /// The limit of SQLite.
    #[strum(to_string = "sqlx alone")]
    RawSqlite,
}

impl Kind {
    /// What its numbers are compared with.
    pub(crate) fn limit(self) -> Option<Self> {
        match self {
            // Nothing stands behind memory that could be measured without it.
            Self::Memory => None,
            Self::Sqlite | Self::RawSqlite => Some(Self::RawSqlite),
        }
    }

    /// A new store, empty, and the folder that holds it while it is measured.
    pub(crate) async fn open(self, folder: &Path) -> Result<Opened, Trouble> {
        let folder = tempfile::Builder::new().prefix("leasehold-bench-").tempdir_in(folder)?;
        let file = folder.path().join("jobs.db");
        let store = match self {
            Self::Memory => Store::Backend(Counted::new(Memory::new())),
            Self::Sqlite => {
                let sqlite = Sqlite::open(&file).await?;
                sqlite.setup(Deadline::after(PATIENCE)).await?;
                Store::Backend(Counted::new(sqlite))
            }
            Self::RawSqlite => Store::Raw(RawSqlite::open(&file).await?),
        };
        Ok(Opened { store, _folder: folder })
    }
}

/// An open store. Its folder goes when it is dropped.
pub(crate) struct Opened {
    store: Store,
    _folder: TempDir,
}

enum Store {
    Backend(Counted),
    Raw(RawSqlite),
}

impl Opened {
    pub(crate) fn target(&mut self) -> &mut dyn Target {
        match &mut self.store {
            Store::Backend(backend) => backend,
            Store::Raw(raw) => raw,
        }
    }

    pub(crate) fn backend(&self) -> Option<&Counted> {
        match &self.store {
            Store::Backend(backend) => Some(backend),
            Store::Raw(_) => None,
        }
    }
}
