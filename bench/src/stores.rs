use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::{Backend, Deadline};
use leasehold_memory::Memory;
use leasehold_mongo::Mongo;
use leasehold_sqlite::Sqlite;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::Trouble;
use crate::counted::Counted;
use crate::limits::{NaiveMongo, RawMongo, RawSqlite};
use crate::server::Server;
use crate::target::{PATIENCE, Target};

/// What can be measured, in the order of the report.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, strum::Display, strum::VariantArray,
)]
pub(crate) enum Kind {
    #[strum(to_string = "memory")]
    Memory,
    #[strum(to_string = "sqlite")]
    Sqlite,
    /// The limit of SQLite.
    #[value(skip)]
    #[strum(to_string = "sqlx alone")]
    RawSqlite,
    #[strum(to_string = "mongo")]
    Mongo,
    /// The limit of MongoDB.
    #[value(skip)]
    #[strum(to_string = "driver alone")]
    RawMongo,
    /// What people write without a queue.
    #[value(skip)]
    #[strum(to_string = "naive loop")]
    NaiveMongo,
}

impl Kind {
    /// The backend whose numbers stand beside it.
    pub(crate) fn backend(self) -> Self {
        match self {
            Self::Memory => Self::Memory,
            Self::Sqlite | Self::RawSqlite => Self::Sqlite,
            Self::Mongo | Self::RawMongo | Self::NaiveMongo => Self::Mongo,
        }
    }

    /// What its numbers are compared with.
    pub(crate) fn limit(self) -> Option<Self> {
        match self {
            // Nothing stands behind memory that could be measured without it.
            Self::Memory => None,
            Self::Sqlite | Self::RawSqlite => Some(Self::RawSqlite),
            Self::Mongo | Self::RawMongo | Self::NaiveMongo => Some(Self::RawMongo),
        }
    }

    /// Whether it knows batches: the naive loop does not.
    pub(crate) fn batches(self) -> bool {
        self != Self::NaiveMongo
    }
}

/// Where a store is, for any process that would open it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    #[arg(long)]
    kind: Kind,
    /// A file or a server's URL.
    #[arg(long)]
    at: String,
    #[arg(long, default_value = "")]
    database: String,
}

impl Place {
    /// The words that make the same place on a command line.
    pub(crate) fn arguments(&self) -> [String; 6] {
        let kind = self.kind.to_string();
        ["--kind".into(), kind, "--at".into(), self.at.clone(), "--database".into(), self.database.clone()]
    }

    /// One more handle of the store, with connections of its own.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Backend>, Trouble> {
        Ok(match self.kind {
            Kind::Sqlite | Kind::RawSqlite => Arc::new(Sqlite::open(&self.at).await?),
            Kind::Mongo | Kind::RawMongo | Kind::NaiveMongo => Arc::new(self.mongo().await?),
            Kind::Memory => return Err("a store in memory is of one process".into()),
        })
    }

    async fn mongo(&self) -> Result<Mongo, Trouble> {
        Ok(Mongo::with(leasehold_mongo::Config::new(&self.at).database(&self.database)).await?)
    }
}

/// Makes stores: each with a folder or a database of its own.
#[derive(Debug)]
pub(crate) struct Stores {
    folder: PathBuf,
    server: OnceCell<Arc<Server>>,
}

impl Stores {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, server: OnceCell::new() }
    }

    /// A new store, empty.
    pub(crate) async fn open(&self, kind: Kind) -> Result<Opened, Trouble> {
        let folder = tempfile::Builder::new().prefix("leasehold-bench-").tempdir_in(&self.folder)?;
        let mut place =
            Place { kind, at: folder.path().join("jobs.db").display().to_string(), database: String::new() };
        let opened = |store, place| Opened { store, place, server: None, _folder: folder };
        match kind {
            Kind::Memory => Ok(opened(Store::Backend(Counted::calls_of(Memory::new())), place)),
            Kind::Sqlite => {
                let sqlite = Sqlite::open(&place.at).await?;
                sqlite.setup(Deadline::after(PATIENCE)).await?;
                Ok(opened(Store::Backend(Counted::calls_of(sqlite)), place))
            }
            Kind::RawSqlite => {
                let raw = RawSqlite::open(place.at.as_ref()).await?;
                Ok(opened(Store::Limit(Arc::new(raw)), place))
            }
            Kind::Mongo | Kind::RawMongo | Kind::NaiveMongo => {
                let server = self.server().await?;
                (place.at, place.database) = (server.url().to_owned(), server.new_database());
                let store = on_server(&place, &server).await?;
                Ok(Opened { server: Some(server), ..opened(store, place) })
            }
        }
    }

    async fn server(&self) -> Result<Arc<Server>, Trouble> {
        self.server.get_or_try_init(async || Server::start().await.map(Arc::new)).await.cloned()
    }
}

async fn on_server(place: &Place, server: &Arc<Server>) -> Result<Store, Trouble> {
    Ok(match place.kind {
        Kind::RawMongo => Store::Limit(Arc::new(RawMongo::open(server.clone(), &place.database))),
        Kind::NaiveMongo => Store::Limit(Arc::new(NaiveMongo::open(server.clone(), &place.database).await?)),
        _ => {
            let mongo = place.mongo().await?;
            mongo.setup(Deadline::after(PATIENCE)).await?;
            Store::Backend(Counted::commands_of(mongo, server.clone()))
        }
    })
}

/// An open store. Its folder goes when it is dropped, its database when it is closed.
pub(crate) struct Opened {
    store: Store,
    place: Place,
    server: Option<Arc<Server>>,
    _folder: TempDir,
}

enum Store {
    Backend(Counted),
    Limit(Arc<dyn Target>),
}

impl Opened {
    pub(crate) fn target(&self) -> Arc<dyn Target> {
        match &self.store {
            Store::Backend(backend) => Arc::new(backend.clone()),
            Store::Limit(limit) => limit.clone(),
        }
    }

    pub(crate) fn backend(&self) -> Option<&Counted> {
        match &self.store {
            Store::Backend(backend) => Some(backend),
            Store::Limit(_) => None,
        }
    }

    /// Where it is, if another process could open it.
    pub(crate) fn place(&self) -> Option<&Place> {
        matches!(self.place.kind, Kind::Sqlite | Kind::Mongo).then_some(&self.place)
    }

    pub(crate) async fn close(self) -> Result<(), Trouble> {
        if let Some(server) = &self.server {
            server.database(&self.place.database).drop().await?;
        }
        Ok(())
    }
}
