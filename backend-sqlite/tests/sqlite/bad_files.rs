use leasehold_core::backend::{Backend, Durability};
use leasehold_core::{Error, ErrorKind};
use leasehold_sqlite::{Config, Sqlite, Synchronous};
use sqlx::{Connection, SqliteConnection};

use crate::mounts::Mount;
use crate::{claim, deadline, enqueue, jobs, store, succeed, total};

async fn refused(path: impl Into<std::path::PathBuf>) -> Error {
    match Sqlite::open(path).await {
        Ok(store) => store.setup(deadline()).await.expect_err("a file that must be refused"),
        Err(error) => error,
    }
}

/// Runs SQL on a file, as somebody else's program does.
async fn sql(path: &std::path::Path, sql: &'static str) {
    let url = format!("sqlite:{}?mode=rwc", path.display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn refuses_a_file_that_is_no_database_and_leaves_it_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter.txt");
    let text = "Dear Ann, this is not a database. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = refused(&path).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn refuses_a_file_of_a_newer_version() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await.close().await;
    let path = folder.path().join("jobs.db");
    sql(&path, "UPDATE leasehold_meta SET value = 999 WHERE key = 'schema'").await;
    let error = refused(&path).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("999") && error.to_string().contains("newer"), "{error}");
}

#[tokio::test]
async fn refuses_somebody_elses_file_and_shares_one_that_says_no_owner() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs.db");
    sql(&theirs, "PRAGMA application_id = 252006674; CREATE TABLE boundaries (x)").await;
    assert_eq!(refused(&theirs).await.kind(), ErrorKind::Incompatible);

    let shared = folder.path().join("jobs.db");
    sql(&shared, "CREATE TABLE orders (id INTEGER PRIMARY KEY)").await;
    let store = store(folder.path()).await;
    assert_eq!(enqueue(&store, jobs(3)).await.unwrap(), 3);
    sql(&shared, "INSERT INTO orders VALUES (1)").await;
}

#[tokio::test]
async fn says_plainly_what_is_wrong_with_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(folder.path()).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("is a folder"), "{error}");
    let error = refused(folder.path().join("nowhere/jobs.db")).await;
    assert!(error.to_string().contains("nowhere is not there"), "{error}");
    for url in ["sqlite:", "sqlite:jobs.db?synchronus=full", "sqlite:jobs.db?synchronous=off"] {
        let error = Sqlite::connect(url).await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
    }
}

#[tokio::test]
async fn an_unset_up_file_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path().join("jobs.db")).await.unwrap();
    let error = enqueue(&store, jobs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("setup"), "{error}");
}

#[tokio::test]
async fn a_read_only_folder_is_told_as_such() {
    let Some(mount) = Mount::new(8) else { return };
    store(mount.folder()).await.close().await;
    mount.make_read_only();
    for file in ["jobs.db", "new.db"] {
        let error = refused(mount.folder().join(file)).await;
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config), "{file}: {error:?}");
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged_and_goes_on_when_there_is_room() {
    let Some(mount) = Mount::new(8) else { return };
    let store = store(mount.folder()).await;
    let mut acknowledged = enqueue(&store, jobs(2_000)).await.unwrap();
    let ballast = mount.folder().join("ballast");
    // Fills whatever is left, however much the store has taken meanwhile.
    let _ = std::fs::write(&ballast, vec![0; 16 << 20]);
    let error = loop {
        match enqueue(&store, jobs(500)).await {
            Ok(created) => acknowledged += created,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000_000, "the disk is never full");
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert!(error.is_transient());
    assert_eq!(total(&store).await, acknowledged as u64);
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(enqueue(&store, jobs(500)).await.unwrap(), 500);
    let claimed = claim(&store, 10_000).await;
    assert_eq!(claimed.jobs.len(), acknowledged + 500);
    succeed(&store, &claimed.jobs).await;
}

#[tokio::test]
async fn tells_the_durability_that_the_connection_has() {
    for (synchronous, durability) in
        [(Synchronous::Full, Durability::D2), (Synchronous::Normal, Durability::D1)]
    {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path().join("jobs.db")).synchronous(synchronous);
        let store = Sqlite::with(config).await.unwrap();
        let description = store.describe(deadline()).await.unwrap();
        assert_eq!(description.capabilities.durability, durability);
    }
}
