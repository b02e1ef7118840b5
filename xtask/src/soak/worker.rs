use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold::policy::{Backoff, JobFailure, RetryPolicy};
use leasehold::worker::{Args, Attempt};
use leasehold::{Limits, Store, Worker};
use leasehold_conformance::history::{FileSink, Recorder};
use serde::{Deserialize, Serialize};

use super::QUEUE;
use crate::run::Trouble;

/// The kind of the jobs.
pub(super) const KIND: &str = "soak";

/// How long to wait before the store is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a job does.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// It takes this long.
    pub(super) millis: u64,
    /// It fails the first time.
    pub(super) fails: bool,
}

async fn run(Args(task): Args<Task>, attempt: Attempt) -> Result<(), JobFailure> {
    tokio::time::sleep(Duration::from_millis(task.millis)).await;
    if task.fails && attempt.number() == 1 {
        return Err(JobFailure::error("soak", "as it was told to"));
    }
    Ok(())
}

/// Is one worker process, until its standard input ends.
pub(crate) fn work(url: &str, history: &Path) -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let name = history.file_stem().ok_or("a history has a name")?.to_string_lossy();
        let sink = Arc::new(FileSink::append(history)?);
        let store = loop {
            // There may be no server just now.
            match leasehold::open(url).await {
                Ok(backend) => {
                    let recorder = Recorder::wrap(backend, &name, sink);
                    break Store::with_limits(Arc::new(recorder), Limits::default());
                }
                Err(error) if error.is_transient() => {
                    eprintln!("{error}");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let retry = RetryPolicy::new(Backoff::Fixed { delay: Duration::from_millis(500) });
        let worker = Worker::builder(&store).queue(QUEUE).handle(KIND, run).concurrency(8).retry(retry);
        // A short lease: what a killed process held is soon taken up again.
        let worker = worker.lease(Duration::from_secs(5)).recovery(Duration::from_secs(1)).build()?.start();
        tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
        worker.stop().await?;
        Ok(())
    })
}
