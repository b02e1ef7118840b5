//! Limits, also those that an installation chose, and settings that make no sense.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backend::{Action, Filter, Level};
use leasehold_core::policy::{Backoff, RetryPolicy};
use leasehold_core::{Attempt, ErrorKind, JobArgs, Kind, Limits, NewJob, State, Store};
use tokio::time::sleep;

use crate::worker::{add, builder, enqueue};
use crate::{Add, store};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn works_within_limits_that_an_installation_chose() {
    let mut limits = Limits::default();
    limits.batch = 10;
    limits.page = 10;
    let store = Store::with_limits(Arc::new(leasehold_memory::Memory::new()), limits);
    let queue = store.queue("sums").unwrap();
    queue.enqueue_all((0..100).map(|a| Add { a, b: 0 })).await.unwrap();
    async fn h(attempt: Attempt) {
        for n in 0..30 {
            attempt.log(Level::Info, n.to_string());
        }
        sleep(s(10)).await;
    }
    let worker = builder(&store).concurrency(50).lease(s(5)).handle(Add::KIND, h).build().unwrap().start();
    sleep(s(60)).await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.of(State::Succeeded), 100, "{counts:?}");
    let summary = worker.stop().await.unwrap();
    assert_eq!((summary.succeeded, summary.lost), (100, 0));
    let mut bulk = store.amend_all(Filter::default(), Action::Delete).await.unwrap();
    while bulk.next().await.unwrap().is_some() {}
}

#[tokio::test(start_paused = true)]
async fn many_large_jobs_go_in_as_many_calls_as_they_need() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    let jobs = (0..200).map(|_| NewJob::new(Kind::new("k").unwrap(), vec![0; 1 << 20].into()));
    assert_eq!(queue.enqueue_all(jobs).await.unwrap().len(), 200);
}

#[tokio::test]
async fn refuses_absurd_settings_of_workers() {
    let store = store();
    let b = || builder(&store).handle(Add::KIND, add);
    let absurd = RetryPolicy::new(Backoff::Fixed { delay: Duration::MAX });
    let options = leasehold_core::worker::HandlerOptions::default();
    for built in [
        b().poll(Duration::ZERO).build(),
        b().poll(Duration::MAX).build(),
        b().recovery(Duration::ZERO).build(),
        b().recovery(Duration::MAX).build(),
        b().timeout(Duration::ZERO).build(),
        b().timeout(Duration::MAX).build(),
        b().concurrency(usize::MAX).build(),
        b().retry(absurd.clone()).build(),
        b().handle_with("a", options.clone().retry(absurd), add).build(),
        b().handle_with("a", options.timeout(Duration::ZERO), add).build(),
    ] {
        assert_eq!(built.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    b().grace(Duration::MAX).cancel_grace(Duration::MAX).prefetch(usize::MAX).build().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_may_be_for_ever() {
    let store = store();
    let job = enqueue(&store, 1, 0).await;
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap().start();
    store.wait(job, Duration::MAX).await.unwrap();
    worker.stop().await.unwrap();
    let mut c = store.queue("sums").unwrap().consumer().poll(Duration::MAX);
    assert!(tokio::time::timeout(s(1), c.wait()).await.is_err());
}
