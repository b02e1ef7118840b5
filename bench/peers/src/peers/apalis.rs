use std::sync::Arc;

use apalis::prelude::{
    BoxDynError, Data, MemoryStorage, TaskSink, WorkerBuilder, WorkerBuilderExt, WorkerContext,
};
use apalis_postgres::PostgresStorage;
use apalis_redis::{ConnectionManager, RedisStorage};
use apalis_sqlite::SqliteStorage;
use async_trait::async_trait;
use leasehold_peers_round::{Job, Queue, Tally, Trouble, Worker};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};
use tokio::sync::Mutex;

use super::{CHUNK, Contestant, on};
use crate::options::{Peer, Store};

const QUEUE: &str = "peers";
/// How many jobs the default worker fetches at once, and the best.
const BATCHES: [usize; 2] = [10, 100];

pub(super) fn contestants(store: Store) -> Vec<Contestant> {
    let contestant =
        |package, config: String, play| Contestant { peer: Peer::Apalis, store, package, config, play };
    let names =
        BATCHES.map(|batch| if batch == BATCHES[0] { "default".into() } else { format!("batch {batch}") });
    let configs = BATCHES.into_iter().zip(names);
    match store {
        Store::Memory => vec![contestant("apalis", "default".into(), on(|_| async { Ok(Memory::new()) }))],
        Store::Sqlite => {
            let mut all: Vec<_> = configs
                .map(|(batch, name)| {
                    let play = on(move |file| Sqlite::open(file, batch, SqliteSynchronous::Full));
                    contestant("apalis-sqlite", format!("{name}, FULL"), play)
                })
                .collect();
            let play = on(|file| Sqlite::open(file, BATCHES[1], SqliteSynchronous::Off));
            all.push(contestant("apalis-sqlite", format!("batch {}, OFF", BATCHES[1]), play));
            all
        }
        Store::Postgres => configs
            .map(|(batch, name)| {
                contestant("apalis-postgres", name, on(move |url| Postgres::open(url, batch)))
            })
            .collect(),
        Store::Redis => configs
            .map(|(batch, name)| contestant("apalis-redis", name, on(move |url| Redis::open(url, batch))))
            .collect(),
    }
}

/// Starts a worker on a backend; a macro, for what the backends have in common has no name.
macro_rules! start {
    ($backend:expr, $concurrency:expr, $tally:expr) => {{
        let context = WorkerContext::new("peers");
        let worker =
            WorkerBuilder::new(&context).backend($backend).data($tally).concurrency($concurrency).build(run);
        let work = async move { worker.run().await.map_err(Trouble::from) };
        Ok(Worker::spawn(work, move || {
            let _ = context.stop();
        }))
    }};
}

/// Takes in jobs by calls of many.
macro_rules! enqueue {
    ($backend:expr, $jobs:expr) => {{
        let backend = $backend;
        for chunk in $jobs.chunks(CHUNK) {
            backend.push_bulk(chunk.to_vec()).await?;
        }
        Ok(())
    }};
}

async fn run(job: Job, tally: Data<Arc<Tally>>) -> Result<(), BoxDynError> {
    tally.ran(&job);
    Ok(())
}

/// What holds the jobs is what the worker is given, so it is there once.
struct Memory(Mutex<Option<MemoryStorage<Job>>>);

impl Memory {
    fn new() -> Self {
        Self(Mutex::new(Some(MemoryStorage::new())))
    }
}

#[async_trait]
impl Queue for Memory {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        let mut storage = self.0.lock().await;
        enqueue!(storage.as_mut().ok_or("the worker has the storage")?, jobs)
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        let storage = self.0.lock().await.take().ok_or("a worker has the storage")?;
        start!(storage, concurrency, tally)
    }

    async fn left(&self) -> Result<u64, Trouble> {
        Ok(0)
    }
}

struct Sqlite {
    pool: SqlitePool,
    batch: usize,
}

impl Sqlite {
    async fn open(file: String, batch: usize, synchronous: SqliteSynchronous) -> Result<Self, Trouble> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous);
        // Its setup turns `synchronous` off for whichever connection it runs on.
        let setup = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        SqliteStorage::setup(&setup).await?;
        setup.close().await;
        Ok(Self { pool: SqlitePoolOptions::new().connect_with(options).await?, batch })
    }

    fn storage(&self) -> SqliteStorage<Job> {
        let config = apalis_sqlite::Config::default().queue(QUEUE).batch_size(self.batch);
        SqliteStorage::new(&self.pool).with_config(config)
    }
}

#[async_trait]
impl Queue for Sqlite {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        enqueue!(&mut self.storage(), jobs)
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        start!(self.storage(), concurrency, tally)
    }

    async fn left(&self) -> Result<u64, Trouble> {
        let count = "SELECT count(*) FROM Jobs WHERE status <> 'Done'";
        Ok(sqlx::query_scalar::<_, i64>(count).fetch_one(&self.pool).await?.try_into()?)
    }
}

struct Postgres {
    pool: PgPool,
    batch: usize,
}

impl Postgres {
    async fn open(url: String, batch: usize) -> Result<Self, Trouble> {
        let pool = PgPool::connect(&url).await?;
        PostgresStorage::setup(&pool).await?;
        Ok(Self { pool, batch })
    }

    fn storage(&self) -> PostgresStorage<Job> {
        let config = apalis_postgres::Config::default().queue(QUEUE).batch_size(self.batch);
        PostgresStorage::new(&self.pool).with_config(config)
    }
}

#[async_trait]
impl Queue for Postgres {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        enqueue!(&mut self.storage(), jobs)
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        start!(self.storage(), concurrency, tally)
    }

    async fn left(&self) -> Result<u64, Trouble> {
        let count = "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'";
        Ok(sqlx::query_scalar::<_, i64>(count).fetch_one(&self.pool).await?.try_into()?)
    }
}

struct Redis {
    connection: ConnectionManager,
    config: apalis_redis::Config,
    jobs: std::sync::atomic::AtomicU64,
}

impl Redis {
    async fn open(url: String, batch: usize) -> Result<Self, Trouble> {
        let connection = apalis_redis::connect(url).await?;
        let config = apalis_redis::Config::default().queue(QUEUE).batch_size(batch);
        Ok(Self { connection, config, jobs: Default::default() })
    }

    fn storage(&self) -> RedisStorage<Job> {
        RedisStorage::new(self.connection.clone()).with_config(self.config.clone())
    }
}

#[async_trait]
impl Queue for Redis {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        self.jobs.store(jobs.len() as u64, std::sync::atomic::Ordering::Relaxed);
        enqueue!(&mut self.storage(), jobs)
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        start!(self.storage(), concurrency, tally)
    }

    async fn left(&self) -> Result<u64, Trouble> {
        let mut count = redis::cmd("SCARD");
        count.arg(self.config.done_jobs_set());
        let done: u64 = count.query_async(&mut self.connection.clone()).await?;
        Ok(self.jobs.load(std::sync::atomic::Ordering::Relaxed).saturating_sub(done))
    }
}
