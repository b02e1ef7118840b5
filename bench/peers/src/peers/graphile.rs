use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions,
};
use leasehold_peers_round::{Job, Queue, Tally, Trouble, Worker};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::{CHUNK, Contestant, on};
use crate::options::{Peer, Store};

/// How many jobs the best worker fetches at once.
const LOCAL_QUEUE: usize = 500;
/// How long its guide has a completed job wait for others.
const DELAY: Duration = Duration::from_millis(5);

pub(super) fn contestants() -> Vec<Contestant> {
    let contestant = |config: String, batches| Contestant {
        peer: Peer::Graphile,
        store: Store::Postgres,
        package: "graphile_worker",
        config,
        play: on(move |url| Graphile::open(url, batches)),
    };
    let best = format!("local queue {LOCAL_QUEUE}, completions batched for {} ms", DELAY.as_millis());
    vec![contestant("default".into(), false), contestant(best, true)]
}

struct Graphile {
    url: String,
    pool: PgPool,
    batches: bool,
}

impl Graphile {
    async fn open(url: String, batches: bool) -> Result<Self, Trouble> {
        let pool = PgPool::connect(&url).await?;
        let queue = Self { url, pool, batches };
        queue.options().init().await?;
        Ok(queue)
    }

    fn options(&self) -> WorkerOptions {
        let options = WorkerOptions::default()
            .database_url(&self.url)
            .listen_os_shutdown_signals(false)
            .define_job::<Noop>();
        if !self.batches {
            return options;
        }
        options
            .local_queue(LocalQueueConfig::default().with_size(LOCAL_QUEUE))
            .complete_job_batch_delay(DELAY)
    }
}

#[async_trait]
impl Queue for Graphile {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        let worker = self.options().init().await?;
        let utils = worker.create_utils();
        let spec = JobSpec::default();
        for chunk in jobs.chunks(CHUNK) {
            let jobs: Vec<_> = chunk.iter().map(|job| (Noop(job.clone()), &spec)).collect();
            utils.add_jobs(&jobs).await?;
        }
        Ok(())
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        let options = self.options().concurrency(concurrency).add_extension(tally);
        let worker = Arc::new(options.init().await?);
        let stopped = worker.clone();
        Ok(Worker::spawn(async move { Ok(worker.run().await?) }, move || stopped.request_shutdown()))
    }

    async fn left(&self) -> Result<u64, Trouble> {
        let count = "SELECT count(*) FROM graphile_worker._private_jobs";
        Ok(sqlx::query_scalar::<_, i64>(count).fetch_one(&self.pool).await?.try_into()?)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Noop(Job);

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let tally = context.get_ext::<Arc<Tally>>().ok_or("there is no tally")?;
        tally.ran(&self.0);
        Ok::<(), &'static str>(())
    }
}
