//! Workers that keep a store busy while it is broken, until every job has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold_conformance::history::{Journal, MemorySink, Recorder, Rules, Tally, check};
use leasehold_core::backend::Enqueue;
use leasehold_core::policy::{Backoff, RetryPolicy};
use leasehold_core::worker::Attempt;
use leasehold_core::{Backend, Limits, NewJob, State, Store, Worker};
use leasehold_redis::{Config, Redis};

use crate::bench::{again, counts, job, set_up, soon, until};

const WORKERS: usize = 3;
/// How many jobs are taken in by one call.
const BATCH: usize = 5;

/// A run under load.
pub(crate) struct Load {
    sink: MemorySink,
    ran: Arc<AtomicUsize>,
    pub(crate) journal: Journal,
}

impl Load {
    /// Takes so many jobs in and lets workers run them while `trouble` happens to the server; then judges the history,
    /// in which at least `unknown` calls must have had no answer.
    pub(crate) async fn run(
        config: Config,
        jobs: usize,
        unknown: usize,
        trouble: impl AsyncFnOnce(&Load),
    ) -> Tally {
        let sink = MemorySink::default();
        let journal = Journal::new("trouble", Arc::new(sink.clone()));
        let load = Load { sink, ran: Arc::default(), journal };
        let ground = set_up(config.clone()).await;
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let recorder = load.recorded(&config, &format!("worker{number}#1")).await;
            let (store, ran) =
                (Store::with_limits(Arc::new(recorder), Limits::default()), Arc::clone(&load.ran));
            let handler = move |attempt: Attempt| handle(attempt, Arc::clone(&ran));
            let retry = RetryPolicy::new(Backoff::Fixed { delay: Duration::ZERO });
            let worker = Worker::builder(&store).handle("work", handler).retry(retry).concurrency(4);
            let worker = worker.lease(Duration::from_secs(5)).recovery(Duration::from_millis(200));
            workers.push(worker.build().expect("a worker").start());
        }
        let producer = load.recorded(&config, "producer#1").await;
        let produce = async {
            for _ in 0..jobs / BATCH {
                let batch: Vec<NewJob> = (0..BATCH).map(some_job).collect();
                again(async || producer.enqueue(soon(), Enqueue { jobs: batch.clone() }).await).await;
            }
        };
        tokio::join!(trouble(&load), produce);
        until("every job ends", async || {
            let counts = counts(&ground).await;
            State::ALL.into_iter().filter(|state| !state.is_terminal()).all(|state| counts.of(state) == 0)
        })
        .await;
        for worker in workers {
            worker.stop().await.expect("it stops");
        }
        load.journal.last_look(&ground).await.expect("a last look");
        let verdict = check(&load.sink.events(), &Rules::drained(jobs).unknown(unknown));
        assert!(verdict.is_valid(), "{verdict}");
        assert_eq!(verdict.tally.jobs, jobs);
        verdict.tally
    }

    async fn recorded(&self, config: &Config, process: &str) -> Recorder {
        let store = Redis::with(config.clone()).await.expect("a store");
        Recorder::wrap(Arc::new(store), process, Arc::new(self.sink.clone()))
    }

    /// Waits until so many more attempts were made.
    pub(crate) async fn ran(&self, more: usize) {
        let wanted = self.ran.load(Ordering::SeqCst) + more;
        until("the load goes on", async || self.ran.load(Ordering::SeqCst) >= wanted).await;
    }
}

/// One job in four is tried again.
async fn handle(attempt: Attempt, ran: Arc<AtomicUsize>) -> Result<(), &'static str> {
    ran.fetch_add(1, Ordering::SeqCst);
    let fails = attempt.job().id.as_uuid().as_bytes()[15].is_multiple_of(4);
    if fails && attempt.number() == 1 { Err("not at the first attempt") } else { Ok(()) }
}

/// One job in five shares a limit key with the others of its kind.
fn some_job(n: usize) -> NewJob {
    if n == 0 { job().limit("narrow".parse().expect("a key"), 3) } else { job() }
}
