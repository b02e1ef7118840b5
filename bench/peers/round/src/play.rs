use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep, timeout};

use crate::{Counts, Job, Tally, Trouble};

/// How long a worker may take to end once it was told to.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait between two looks at what is left.
const BETWEEN: Duration = Duration::from_millis(5);

/// What a round asks of every queue.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    pub jobs: usize,
    /// How many jobs may run at the same time.
    pub concurrency: usize,
    /// How long the jobs may take; what was done by then counts.
    pub limit: Duration,
}

/// A queue that holds nothing yet.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Takes these jobs in, by the fastest call there is.
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble>;
    /// Starts one worker, which tells the tally of every run.
    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble>;
    /// How many jobs have not ended, by the store's own books; 0 where it keeps none.
    async fn left(&self) -> Result<u64, Trouble>;
}

/// A worker at work.
#[derive(Debug)]
pub struct Worker {
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<Result<(), Trouble>>,
}

impl Worker {
    /// Runs `work` until it ends; `stop` is called when it is told to.
    pub fn spawn(
        work: impl Future<Output = Result<(), Trouble>> + Send + 'static,
        stop: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (sender, told) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::pin!(work);
            tokio::select! {
                ended = &mut work => return ended,
                _ = told => stop(),
            }
            work.await
        });
        Self { stop: sender, task }
    }
}

/// What came of a round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// How long it took to take the jobs in.
    pub enqueue: Duration,
    /// From the start of the worker until the store knew that every job has ended, or until the limit.
    pub process: Duration,
    /// Counted when the worker was gone.
    pub counts: Counts,
    /// Jobs that the store did not hold for ended when the worker was gone.
    pub left: u64,
    /// Why not every job ran, or what went wrong with the end of the worker.
    pub trouble: Option<String>,
}

/// Plays one round.
///
/// # Errors
/// Those of the queue, but for those of a worker at work, which are part of what came of it.
pub async fn play(queue: &dyn Queue, course: Course) -> Result<Round, Trouble> {
    let jobs = Job::all(course.jobs);
    let begin = Instant::now();
    queue.enqueue(jobs).await?;
    let enqueue = begin.elapsed();

    let tally = Tally::new(course.jobs);
    let begin = Instant::now();
    let Worker { stop, mut task } = queue.start(course.concurrency, tally.clone()).await?;
    let trouble = tokio::select! {
        () = tally.all() => None,
        () = sleep(course.limit) => Some(format!("not all ran within {} s", course.limit.as_secs())),
        ended = &mut task => Some(format!("the worker ended before all had run: {}", told(ended))),
    };
    if trouble.is_some() {
        let (process, counts) = (begin.elapsed(), tally.counts());
        drop(stop);
        if !task.is_finished() {
            let _ = end(task).await;
        }
        let left = queue.left().await?;
        return Ok(Round { enqueue, process, counts, left, trouble });
    }

    drop(stop);
    let stopped = Instant::now();
    let left = loop {
        let over = task.is_finished() || stopped.elapsed() > PATIENCE;
        let left = queue.left().await?;
        if left == 0 || over {
            break left;
        }
        sleep(BETWEEN).await;
    };
    let process = begin.elapsed();
    let trouble = end(task).await.err();
    Ok(Round { enqueue, process, counts: tally.counts(), left, trouble })
}

type Ended = Result<Result<(), Trouble>, JoinError>;

/// Waits for the end of a worker that was told to stop.
async fn end(mut task: JoinHandle<Result<(), Trouble>>) -> Result<(), String> {
    match timeout(PATIENCE, &mut task).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(ended) => Err(format!("the worker ended badly: {}", told(ended))),
        Err(_) => {
            task.abort();
            Err(format!("the worker did not end within {} s", PATIENCE.as_secs()))
        }
    }
}

fn told(ended: Ended) -> String {
    match ended {
        Ok(Ok(())) => "without an error".into(),
        Ok(Err(trouble)) => trouble.to_string(),
        Err(broken) => broken.to_string(),
    }
}
