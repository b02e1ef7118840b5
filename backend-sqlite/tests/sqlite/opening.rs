//! Which files are opened, and what is said of those that are not.

use leasehold_core::backend::{Durability, Enqueue};
use leasehold_core::{Backend, Deadline, Error, ErrorKind, State};
use leasehold_sqlite::{Config, Sqlite, Synchronous};
use sqlx::Executor;

use crate::bench::{Bench, Mount, connection, counts, enqueue, jobs, open, soon};

async fn refused(config: Config) -> Error {
    let store = match Sqlite::with(config).await {
        Err(error) => return error,
        Ok(store) => store,
    };
    store.setup(soon()).await.unwrap_err()
}

#[tokio::test]
async fn refuses_a_file_that_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    let text = "a shopping list, longer than the header of a database: ".repeat(10);
    std::fs::write(&file, &text).unwrap();
    let error = refused(Config::new(&file)).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("no SQLite database"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn refuses_another_applications_file_and_leaves_it_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("theirs.db");
    connection(file.clone()).await.execute("PRAGMA application_id = 77; CREATE TABLE t (x)").await.unwrap();
    let before = std::fs::read(&file).unwrap();
    let error = refused(Config::new(&file)).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("another application"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn lives_in_a_file_beside_other_tables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let mut theirs = connection(file.clone()).await;
    theirs.execute("CREATE TABLE orders (x); INSERT INTO orders VALUES (7)").await.unwrap();
    let store = open(file).await;
    enqueue(&store, jobs(3)).await.unwrap();
    assert_eq!(counts(&store).await.of(State::Queued), 3);
    let kept: (i64, i64) =
        sqlx::query_as("SELECT x, (SELECT application_id FROM pragma_application_id) FROM orders")
            .fetch_one(&mut theirs)
            .await
            .unwrap();
    assert_eq!(kept, (7, 0), "the file stays theirs");
}

#[tokio::test]
async fn refuses_tables_of_a_newer_version() {
    let bench = Bench::new().await;
    bench.store.close().await;
    bench.connection().await.execute("UPDATE leasehold_meta SET value = 99").await.unwrap();
    let error = refused(Config::new(bench.file())).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("newer program"), "{error}");
}

#[tokio::test]
async fn says_that_setup_was_not_called() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path().join("new.db")).await.unwrap();
    for error in [enqueue(&store, jobs(1)).await.unwrap_err(), store.queues(soon()).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains("call `setup`"), "{error}");
    }
}

#[tokio::test]
async fn says_what_is_wrong_with_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (config, hint) in [
        (Config::new(folder.path()), "is a folder"),
        (Config::new(folder.path().join("none/jobs.db")), "create it first"),
        (Config::new(file.join("jobs.db")), "create it first"),
        (Config::new(folder.path().join("jobs.db")).create(false), "is not there"),
        (Config::new(":memory:"), "memory backend"),
    ] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[tokio::test]
async fn says_that_a_folder_may_not_be_written_to() {
    let Some(mount) = Mount::new("size=8m") else { return };
    open(mount.path().join("jobs.db")).await.close().await;
    mount.remount("ro");
    for file in ["jobs.db", "new.db"] {
        let error = refused(Config::new(mount.path().join(file))).await;
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config), "{error:?}");
        assert!(
            error.to_string().contains("may be written to") || error.to_string().contains("right to write"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn is_set_up_by_twenty_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let one = |_| {
        let file = file.clone();
        tokio::spawn(async move { open(file).await })
    };
    let stores = futures::future::join_all((0..20).map(one)).await;
    for store in stores {
        enqueue(&store.unwrap(), jobs(1)).await.unwrap();
    }
    assert_eq!(counts(&open(file).await).await.of(State::Queued), 20);
}

#[tokio::test]
async fn keeps_jobs_when_it_is_closed_and_opened_again() {
    let bench = Bench::new().await;
    enqueue(&bench.store, jobs(500)).await.unwrap();
    bench.store.close().await;
    let error = enqueue(&bench.store, jobs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(bench.store.queues(soon()).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(counts(&open(bench.file()).await).await.of(State::Queued), 500);
}

#[tokio::test]
async fn reads_its_durability_from_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    for (synchronous, durability) in
        [(Synchronous::Full, Durability::D2), (Synchronous::Normal, Durability::D1)]
    {
        let config = Config::new(folder.path().join("jobs.db")).synchronous(synchronous);
        let store = Sqlite::with(config).await.unwrap();
        assert_eq!(store.describe(soon()).await.unwrap().capabilities.durability, durability);
    }
}

#[tokio::test]
async fn opens_what_a_url_names() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        Sqlite::connect(&format!("sqlite://{}/jobs.db?readers=1", folder.path().display())).await.unwrap();
    store.setup(Deadline::default()).await.unwrap();
    store.enqueue(soon(), Enqueue { jobs: jobs(1) }).await.unwrap();
    assert!(folder.path().join("jobs.db").exists());
}
