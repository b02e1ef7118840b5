use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use leasehold_conformance::Harness;
use leasehold_core::Backend;
use leasehold_memory::Memory;
use tempfile::TempDir;

use crate::Trouble;
use crate::counted::Counted;
use crate::target::Target;
use crate::work::Meter;

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
    #[strum(to_string = "postgres")]
    Postgres,
    /// The limit of PostgreSQL.
    #[value(skip)]
    #[strum(to_string = "sqlx alone on postgres")]
    RawPostgres,
    #[strum(to_string = "redis")]
    Redis,
    /// The limit of Redis.
    #[value(skip)]
    #[strum(to_string = "records alone")]
    RawRedis,
    /// What people write without a queue.
    #[value(skip)]
    #[strum(to_string = "list loop")]
    NaiveRedis,
    /// What a harness opens.
    #[value(skip)]
    #[strum(to_string = "this store")]
    Given,
}

impl Kind {
    /// The backend whose numbers stand beside it.
    pub(crate) fn backend(self) -> Self {
        match self {
            Self::Memory => Self::Memory,
            Self::Given => Self::Given,
            Self::Sqlite | Self::RawSqlite => Self::Sqlite,
            Self::Mongo | Self::RawMongo | Self::NaiveMongo => Self::Mongo,
            Self::Postgres | Self::RawPostgres => Self::Postgres,
            Self::Redis | Self::RawRedis | Self::NaiveRedis => Self::Redis,
        }
    }

    /// What its numbers are compared with.
    pub(crate) fn limit(self) -> Option<Self> {
        match self {
            // Nothing stands behind memory that could be measured without it.
            Self::Memory => None,
            Self::Given => Some(Self::Memory),
            Self::Sqlite | Self::RawSqlite => Some(Self::RawSqlite),
            Self::Mongo | Self::RawMongo | Self::NaiveMongo => Some(Self::RawMongo),
            Self::Postgres | Self::RawPostgres => Some(Self::RawPostgres),
            Self::Redis | Self::RawRedis | Self::NaiveRedis => Some(Self::RawRedis),
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
    pub(crate) kind: Kind,
    /// A file or a server's URL.
    #[arg(long)]
    pub(crate) at: String,
    #[arg(long, default_value = "")]
    pub(crate) database: String,
}

impl Place {
    /// The words that make the same place on a command line.
    pub(crate) fn arguments(&self) -> [String; 6] {
        let kind = self.kind.to_string();
        ["--kind".into(), kind, "--at".into(), self.at.clone(), "--database".into(), self.database.clone()]
    }

    /// One more handle of the store, with connections of its own.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Backend>, Trouble> {
        match self.kind {
            #[cfg(feature = "stores")]
            Kind::Sqlite | Kind::Mongo | Kind::Postgres | Kind::Redis => crate::ours::another(self).await,
            kind => Err(format!("{kind} is of one process").into()),
        }
    }
}

/// Makes stores: each with a folder or a database of its own.
pub(crate) struct Stores {
    folder: PathBuf,
    given: Option<Arc<dyn Harness>>,
    #[cfg(feature = "stores")]
    pub(crate) server: tokio::sync::OnceCell<Arc<crate::server::Server>>,
    #[cfg(feature = "stores")]
    pub(crate) postgres: tokio::sync::OnceCell<Arc<leasehold_test_servers::Postgres>>,
    #[cfg(feature = "stores")]
    pub(crate) redis: std::sync::OnceLock<leasehold_test_servers::Redis>,
}

impl Stores {
    /// Makes files in this folder, and asks this harness for a store that is not one of this workspace.
    pub(crate) fn new(folder: PathBuf, given: Option<Arc<dyn Harness>>) -> Self {
        Self {
            folder,
            given,
            #[cfg(feature = "stores")]
            server: tokio::sync::OnceCell::new(),
            #[cfg(feature = "stores")]
            postgres: tokio::sync::OnceCell::new(),
            #[cfg(feature = "stores")]
            redis: std::sync::OnceLock::new(),
        }
    }

    /// A new store, empty.
    pub(crate) async fn open(&self, kind: Kind) -> Result<Opened, Trouble> {
        let folder = tempfile::Builder::new().prefix("leasehold-bench-").tempdir_in(&self.folder)?;
        let at = folder.path().join("jobs.db").display().to_string();
        let place = Place { kind, at, database: String::new() };
        let (place, store, on_close) = match kind {
            Kind::Memory => (place, Store::Backend(Counted::calls_of(Arc::new(Memory::new()))), None),
            Kind::Given => (place, Store::Backend(Counted::stranger(self.of_harness().await?)), None),
            #[cfg(feature = "stores")]
            _ => crate::ours::open(self, place).await?,
            #[cfg(not(feature = "stores"))]
            _ => return Err(format!("{kind} is measured with the feature `stores` alone").into()),
        };
        Ok(Opened { store, place, on_close, _folder: folder })
    }

    async fn of_harness(&self) -> Result<Arc<dyn Backend>, Trouble> {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let harness = self.given.as_ref().ok_or("there is no harness")?;
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench_{:x}_{number}", std::process::id());
        Ok(harness.open(&leasehold_conformance::Place::named(name)).await?)
    }
}

/// What is to be done when a store is no longer needed.
pub(crate) type Closing = BoxFuture<'static, Result<(), Trouble>>;

/// An open store. Its folder goes when it is dropped, its database when it is closed.
pub(crate) struct Opened {
    store: Store,
    place: Place,
    on_close: Option<Closing>,
    _folder: TempDir,
}

pub(crate) enum Store {
    Backend(Counted),
    #[cfg(feature = "stores")]
    Limit(Arc<dyn Target>),
}

impl Opened {
    pub(crate) fn target(&self) -> Arc<dyn Target> {
        match &self.store {
            Store::Backend(backend) => Arc::new(backend.clone()),
            #[cfg(feature = "stores")]
            Store::Limit(limit) => limit.clone(),
        }
    }

    pub(crate) fn backend(&self) -> Option<&Counted> {
        match &self.store {
            Store::Backend(backend) => Some(backend),
            #[cfg(feature = "stores")]
            Store::Limit(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.place.kind
    }

    /// What reads how much its server has done.
    pub(crate) async fn meter(&self) -> Result<Meter, Trouble> {
        match self.place.kind.backend() {
            #[cfg(feature = "stores")]
            Kind::Redis => crate::ours::redis_meter(&self.place).await,
            _ => Ok(Meter::None),
        }
    }

    /// Where it is, if another process could open it.
    pub(crate) fn place(&self) -> Option<&Place> {
        let shared = matches!(self.place.kind, Kind::Sqlite | Kind::Mongo | Kind::Postgres | Kind::Redis);
        shared.then_some(&self.place)
    }

    pub(crate) async fn close(self) -> Result<(), Trouble> {
        match self.on_close {
            Some(close) => close.await,
            None => Ok(()),
        }
    }
}
