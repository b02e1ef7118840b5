use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_peers_round::Trouble;
use leasehold_test_servers::{Postgres, Redis};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

use crate::options::Store;

/// Where the rounds on one store are played: a folder or a server of this run alone, with the settings that the tests
/// of Leasehold use.
pub(crate) enum Ground {
    Memory,
    Folder(PathBuf),
    Postgres(Postgres),
    Redis(Redis),
}

/// An empty store.
pub(crate) struct Place {
    /// A file on SQLite, else what a driver connects to.
    pub(crate) url: String,
    folder: Option<TempDir>,
    /// The server's URL and the database to be dropped.
    database: Option<(String, String)>,
}

impl Ground {
    pub(crate) async fn new(store: Store, folder: PathBuf) -> Result<Self, Trouble> {
        // Starting a server blocks.
        let start = move || {
            Ok::<_, Trouble>(match store {
                Store::Memory => Self::Memory,
                Store::Sqlite => Self::Folder(folder),
                Store::Postgres => Self::Postgres(Postgres::own()?),
                Store::Redis => Self::Redis(Redis::own()?),
            })
        };
        tokio::task::spawn_blocking(start).await?
    }

    pub(crate) async fn place(&self) -> Result<Place, Trouble> {
        let mut place = Place { url: "memory:".into(), folder: None, database: None };
        match self {
            Self::Memory => {}
            Self::Folder(folder) => {
                let folder = tempfile::Builder::new().prefix("leasehold-peers-").tempdir_in(folder)?;
                place.url = folder.path().join("jobs.db").display().to_string();
                place.folder = Some(folder);
            }
            Self::Postgres(server) => {
                static DATABASES: AtomicU64 = AtomicU64::new(0);
                let name = format!("peers_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
                let (host, _) = server.url().rsplit_once('/').ok_or("the server's URL names no database")?;
                place.url = format!("{host}/{name}");
                execute(server.url(), format!("CREATE DATABASE {name}")).await?;
                place.database = Some((server.url().to_owned(), name));
            }
            Self::Redis(server) => {
                place.url = server.url().to_owned();
                let mut connection =
                    redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
                redis::cmd("FLUSHALL").arg("SYNC").query_async::<()>(&mut connection).await?;
            }
        }
        Ok(place)
    }
}

impl Place {
    /// Removes what is in it.
    pub(crate) async fn clear(self) -> Result<(), Trouble> {
        if let Some((url, name)) = self.database {
            execute(&url, format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        }
        Ok(self.folder.map_or(Ok(()), TempDir::close)?)
    }
}

async fn execute(url: &str, statement: String) -> Result<(), Trouble> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}
