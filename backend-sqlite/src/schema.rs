//! Opens the file, checks that it is ours, and makes or migrates its tables.

use std::path::Path;
use std::time::Duration;

use leasehold_core::backend::Durability;
use leasehold_core::{Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};

use tokio::time::Instant;

use crate::config::{Config, Synchronous};
use crate::error::{BACKEND, Done, Fault};

/// Marks a file that is ours and nobody else's: the letters `LsHd`.
const APPLICATION: i64 = 0x4c73_4864;
/// The migrations, in order; the version of a schema is how many it has had.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/0001_jobs.sql")];
/// The oldest SQLite that does not damage files when two processes write and checkpoint at once.
const OLDEST: (u32, u32, u32) = (3, 51, 3);

/// What the open connection says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) durability: Durability,
}

/// Opens the connection that writes, and refuses a file that we must not write to (clause B4).
pub(crate) async fn connect_writer(config: &Config) -> Result<SqliteConnection> {
    check_path(config)?;
    let give_up = Instant::now() + config.busy_timeout;
    loop {
        match try_connect(config).await.map_err(Error::from) {
            // While others open the file, too, the switch to WAL is refused without waiting.
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < give_up => {}
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn try_connect(config: &Config) -> Done<SqliteConnection> {
    let options = options(config).create_if_missing(config.create).pragma("cache_size", "-65536");
    let mut conn = options.connect().await?;
    check_version(&facts(&mut conn).await?.version)?;
    check_owner(&mut conn).await?;
    // Only now may anything be written to the file.
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut conn).await?;
    if mode != "wal" {
        let why =
            format!("the file system cannot do write-ahead logging (journal mode {mode}); use a local disk");
        return Err(Error::new(ErrorKind::Config, why).into());
    }
    Ok(conn)
}

fn options(config: &Config) -> SqliteConnectOptions {
    let synchronous = match config.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    SqliteConnectOptions::new()
        .filename(&config.path)
        .busy_timeout(config.busy_timeout)
        .statement_cache_capacity(512)
        .row_buffer_size(1024)
        .pragma("synchronous", synchronous)
        .pragma("foreign_keys", "ON")
        .pragma("mmap_size", "0")
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

/// The connections that read, opened as they are needed.
pub(crate) fn readers(config: &Config) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(config.readers)
        .test_before_acquire(false)
        .connect_lazy_with(options(config).read_only(true).pragma("cache_size", "-8192"))
}

/// Reads what the connection says of itself (clause P1).
pub(crate) async fn facts(conn: &mut SqliteConnection) -> Done<Facts> {
    let version = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut *conn).await?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(conn).await?;
    let durability = match synchronous {
        0 => Durability::D0,
        1 => Durability::D1,
        _ => Durability::D2,
    };
    Ok(Facts { version, durability })
}

/// Makes or migrates the tables, inside the writer's transaction (clause B4).
pub(crate) async fn setup(conn: &mut SqliteConnection) -> Done<()> {
    let others: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'leasehold_%'")
            .fetch_one(&mut *conn)
            .await?;
    let version = check_owner(conn).await?.unwrap_or(0);
    for migration in &MIGRATIONS[version..] {
        sqlx::raw_sql(*migration).execute(&mut *conn).await?;
    }
    if version == 0 && others == 0 {
        let mark = AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION}"));
        sqlx::query(mark).execute(&mut *conn).await?;
    }
    sqlx::query("INSERT INTO leasehold_meta VALUES ('schema', ?1) ON CONFLICT DO UPDATE SET value = ?1")
        .bind(MIGRATIONS.len() as i64)
        .execute(conn)
        .await?;
    Ok(())
}

/// Tells the version of our tables, none if there are none; refuses a file of somebody else's or of a newer
/// version.
async fn check_owner(conn: &mut SqliteConnection) -> Done<Option<usize>> {
    let ours: bool = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'leasehold_meta'")
        .fetch_one(&mut *conn)
        .await?;
    if !ours {
        let owner: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(conn).await?;
        return if owner == 0 || owner == APPLICATION { Ok(None) } else { Err(somebody_elses(owner)) };
    }
    let version: Option<i64> = sqlx::query_scalar("SELECT value FROM leasehold_meta WHERE key = 'schema'")
        .fetch_optional(conn)
        .await?;
    let version = usize::try_from(version.unwrap_or(0)).unwrap_or(0);
    if version > MIGRATIONS.len() {
        let why = format!(
            "the tables are of version {version}, this program knows up to {}: use a newer program",
            MIGRATIONS.len()
        );
        return Err(Error::new(ErrorKind::Incompatible, why).into());
    }
    Ok(Some(version))
}

fn somebody_elses(owner: i64) -> Fault {
    let why =
        format!("the file belongs to another application (application_id {owner:#x}); give another path");
    Error::new(ErrorKind::Incompatible, why).into()
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) >= OLDEST {
        return Ok(());
    }
    let why = format!(
        "SQLite {version} can damage a file that two processes write to; build with 3.51.3 or newer \
         (libsqlite3-sys 0.37 with its feature `bundled`)"
    );
    Err(Error::new(ErrorKind::Incompatible, why))
}

/// Says plainly what SQLite would only call "unable to open database file".
fn check_path(config: &Config) -> Result<()> {
    let path = &config.path;
    let wrong = |why: String| Err(Error::new(ErrorKind::Config, why).on(BACKEND));
    if path.is_dir() {
        return wrong(format!("{} is a folder; give the path of a file in it", path.display()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return wrong(format!("the folder {} is not there; create it first", folder.display()));
    }
    if !config.create && !path.exists() {
        return wrong(format!("{} is not there, and `create` is off", path.display()));
    }
    Ok(())
}

/// The plan of a query that runs often, which may scan neither the jobs nor anything that grows with them.
#[cfg(test)]
pub(crate) async fn assert_indexed(sql: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut conn = connect_writer(&Config::new(folder.path().join("jobs.db"))).await.unwrap();
    setup(&mut conn).await.unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(&mut conn).await.unwrap();
    let plan: Vec<_> = steps.into_iter().map(|(_, _, _, step)| step).collect();
    let small = ["start", "lanes", "json_each", "leasehold_lanes", "(subquery"];
    for step in &plan {
        let scanned =
            step.strip_prefix("SCAN ").filter(|what| !small.iter().any(|small| what.starts_with(small)));
        assert!(scanned.is_none(), "{sql}\n{}", plan.join("\n"));
    }
    plan.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_sqlite_that_damages_files() {
        for old in ["3.51.2", "3.46.0", "2.99.99", "nonsense"] {
            assert_eq!(check_version(old).unwrap_err().kind(), ErrorKind::Incompatible, "{old}");
        }
        for new in ["3.51.3", "3.52.0", "4.0.0"] {
            check_version(new).unwrap();
        }
    }
}
