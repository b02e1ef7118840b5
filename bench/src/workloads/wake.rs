use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use leasehold_core::client::Store;
use leasehold_core::worker::Worker;
use leasehold_core::{Limits, NewJob};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, Wait};
use crate::stores::{Opened, Stores};

/// How long a worker has nothing to do before it is woken: so long that it is surely waiting, and no multiple of
/// its poll interval.
const PAUSE: Duration = Duration::from_millis(130);
/// How often it is woken before it counts.
const WARM: u64 = 10;

/// From the call that enqueues a job to the start of its handler, in a worker that waits, has a handle of the store
/// of its own where there can be one, and polls once a second.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    for kind in options.backends() {
        progress.set_message(format!("wake, {kind}"));
        let opened = stores.open(kind).await?;
        let waits = measure(&opened, options.wakes()).await?;
        report.waits.push(Wait { kind, waits });
        opened.close().await?;
    }
    Ok(())
}

/// Microseconds.
async fn measure(opened: &Opened, wakes: u64) -> Result<Histogram<u64>, Trouble> {
    let backend = opened.backend().ok_or("only a backend has workers")?.clone();
    let theirs = match opened.place() {
        Some(place) => Store::with_limits(place.open().await?, Limits::default()),
        None => Store::new(backend.clone()),
    };
    let (started, mut starts) = mpsc::channel(1);
    let handler = move || {
        let (started, now) = (started.clone(), Instant::now());
        async move {
            // It is heard as long as anybody measures.
            let _ = started.send(now).await;
        }
    };
    let worker = Worker::builder(&theirs).handle("bench", handler).build()?.start();
    let store = Store::new(backend);
    let queue = store.queue("default")?;
    let mut waits = Histogram::new(3)?;
    for wake in 0..WARM + wakes {
        sleep(PAUSE).await;
        let begin = Instant::now();
        queue.enqueue(NewJob::dynamic("bench", &wake)?).await?;
        let start = timeout(Duration::from_secs(30), starts.recv()).await?.ok_or("the worker ended")?;
        if wake >= WARM {
            waits.record(u64::try_from(start.saturating_duration_since(begin).as_micros())?)?;
        }
    }
    worker.stop().await?;
    Ok(waits)
}
