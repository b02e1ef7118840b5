//! How long ended jobs are kept, by how they ended.

use std::time::Duration;

use leasehold_core::backend::{Prune, QueueCounts};
use leasehold_core::policy::Control;
use leasehold_core::testing::run_all;
use leasehold_core::{
    Attempt, Deadline, JobArgs, JobId, JobRecord, Keep, NewJob, Reason, Retention, State, Store,
};
use tokio::time::{advance, sleep};

use crate::worker::builder;
use crate::{Add, store};

const DAY: Duration = Duration::from_hours(24);

/// What is not a 1 fails, and what is a 2 is aborted.
async fn end(attempt: Attempt) -> Result<(), &'static str> {
    match attempt.job().payload.parse::<Add>().map(|add| add.a) {
        Ok(1) => Ok(()),
        Ok(2) => attempt.end(Control::Abort("enough".into())).await,
        _ => Err("broken"),
    }
}

/// Jobs that succeeded, failed, were cancelled and were aborted.
async fn ended(store: &Store, retention: Option<Retention>) -> [JobRecord; 4] {
    let queue = store.queue("sums").unwrap();
    let mut ids: Vec<JobId> = Vec::new();
    for (a, delay) in [(1, 0), (3, 0), (1, 99), (2, 0)] {
        let job = NewJob::of(&Add { a, b: 0 }).unwrap().max_attempts(1).delay(Duration::from_secs(delay));
        let job = match retention {
            Some(retention) => job.retention(retention),
            None => job,
        };
        ids.push(queue.enqueue(job).await.unwrap());
    }
    store.cancel(ids[2]).await.unwrap();
    let worker = builder(store).handle(Add::KIND, end).build().unwrap();
    run_all(store, worker).await.unwrap();
    let found = store.find_all(ids).await.unwrap().into_iter().flatten().collect::<Vec<_>>();
    found.try_into().unwrap()
}

fn states(jobs: &[JobRecord]) -> Vec<(State, Option<Reason>)> {
    jobs.iter().map(|job| (job.state, job.reason)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_is_kept_as_long_as_is_usual_for_its_end() {
    let store = store();
    let jobs = ended(&store, None).await;
    let cancelled = [(State::Cancelled, Some(Reason::Cancelled)), (State::Cancelled, Some(Reason::Aborted))];
    assert_eq!((jobs[0].state, jobs[1].state), (State::Succeeded, State::Failed));
    assert_eq!(states(&jobs[2..]), cancelled);
    for (job, days) in jobs.iter().zip([7, 180, 1, 1]) {
        let (from, until) = (job.finished_at.unwrap(), job.expires_at.unwrap());
        assert_eq!(until.since(from), DAY * days, "{:?}", job.state);
    }
    for (days, left) in [(1, 4), (2, 2), (7, 2), (8, 1), (180, 1), (181, 0)] {
        let passed = store.now().await.unwrap().since(jobs[0].finished_at.unwrap());
        advance((DAY * days).saturating_sub(passed)).await;
        let counts = prune(&store).await;
        assert_eq!(counts.total(), left, "when {days} days are over");
        assert_eq!(counts.total() + counts.deleted, counts.enqueued);
    }
}

/// Prunes, as any worker does once a minute, and counts what is left.
async fn prune(store: &Store) -> QueueCounts {
    let request = Prune { limit: 500, workers_after: DAY };
    store.backend().prune(Deadline::default(), request).await.unwrap();
    store.queue("sums").unwrap().counts().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_retention_of_nothing_keeps_nothing_and_one_for_ever_keeps_all() {
    let (nothing, always) = (Keep::For(Duration::ZERO), Keep::Forever);
    for (keep, left) in [(nothing, 0), (always, 4)] {
        let store = store();
        let retention = Retention { succeeded: keep, failed: keep, cancelled: keep };
        let jobs = ended(&store, Some(retention)).await;
        for job in &jobs {
            let until = (keep != always).then_some(job.finished_at.unwrap());
            assert_eq!(job.expires_at, until, "{:?}", job.state);
        }
        advance(if keep == nothing { Duration::from_millis(1) } else { DAY * 3_650 }).await;
        assert_eq!(prune(&store).await.total(), left);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_removes_what_was_kept_long_enough() {
    let store = store();
    let nothing = Keep::For(Duration::ZERO);
    ended(&store, Some(Retention { succeeded: nothing, ..Retention::default() })).await;
    let worker = builder(&store).handle(Add::KIND, end).build().unwrap().start();
    sleep(Duration::from_secs(80)).await;
    assert_eq!(store.queue("sums").unwrap().counts().await.unwrap().total(), 3);
    worker.stop().await.unwrap();
}
