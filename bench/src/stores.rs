use std::path::Path;

use leasehold_core::{Backend, Deadline};
use leasehold_memory::Memory;
use leasehold_sqlite::Sqlite;
use tempfile::TempDir;

use crate::Trouble;
use crate::counted::Counted;
use crate::raw::RawSqlite;
use crate::target::Target;

/// What can be measured, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::VariantArray)]
pub(crate) enum Kind {
    #[strum(to_string = "memory")]
    Memory,
    #[strum(to_string = "sqlite")]
    Sqlite,
    #[strum(to_string = "sqlx alone")]
    RawSqlite,
}

impl Kind {
    /// What its numbers are compared with.
    pub(crate) fn limit(self) -> Option<Self> {
        match self {
            Self::Sqlite => Some(Self::RawSqlite),
            Self::Memory | Self::RawSqlite => None,
        }
    }

    /// A new store, empty, and the folder that holds it while it is measured.
    pub(crate) async fn open(self, folder: &Path) -> Result<Opened, Trouble> {
        let folder = tempfile::Builder::new().prefix("leasehold-bench-").tempdir_in(folder)?;
        let file = folder.path().join("jobs.db");
        let store = match self {
            Self::Memory => Store::Backend(Counted::new(Memory::new())),
            Self::Sqlite => {
                let store = Sqlite::open(&file).await?;
                store.setup(Deadline::default()).await?;
                Store::Backend(Counted::new(store))
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
