//! Many workers on a bad line: no job is lost, and none runs twice at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::testing::enqueued;
use leasehold_core::worker::{Args, State as Shared};
use leasehold_core::{ErrorKind, JobArgs, JobId, NewJob, Reason, State};
use tokio::time::sleep;

use crate::Add;
use crate::probe::{Fate, Probe};
use crate::worker::builder;

/// Which jobs run now.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<HashMap<JobId, u32>>>);

/// One run of a job.
struct Run(Runs, JobId);

impl Run {
    fn begin(runs: &Runs, job: JobId) -> Self {
        let before = runs.0.lock().unwrap().insert(job, 1);
        assert!(matches!(before, None | Some(0)), "{job} runs twice at once");
        Self(runs.clone(), job)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().insert(self.1, 0);
    }
}

fn storm(seed: u64) -> impl FnMut(Operation) -> Fate + Send {
    let mut dice = fastrand::Rng::with_seed(seed);
    move |_| match dice.u32(0..100) {
        0..10 => Fate::Lose,
        10..15 => Fate::Hang,
        15..20 => Fate::Mute,
        20..30 => Fate::Refuse(ErrorKind::Unknown),
        30..40 => Fate::Refuse(ErrorKind::Unavailable),
        40..70 => Fate::Late(Duration::from_millis(dice.u64(0..400))),
        _ => Fate::Pass,
    }
}

#[tokio::test(start_paused = true)]
async fn no_job_is_lost_and_none_runs_twice_at_once() {
    for seed in 0..3 {
        let probe = Probe::quiet();
        let (store, runs) = (probe.store(), Runs::default());
        let queue = store.queue("sums").unwrap();
        let leases = [100, 500, 1_000, 3_000, 30_000].map(Duration::from_millis);
        let job = |a: u64| NewJob::of(&Add { a, b: 0 }).unwrap().lease(leases[a as usize % 5]);
        let job = |a| job(a).crash_budget(1_000).max_attempts(1_000);
        queue.enqueue_all((0..100).map(job)).await.unwrap();
        async fn watched(Args(sum): Args<Add>, job: JobId, runs: Shared<Runs>) {
            let _run = Run::begin(&runs, job);
            // Those with a long lease run long, so that their renewals are under way beside those of short ones.
            let millis = if sum.a % 5 == 4 { 15_000 } else { sum.a * 21 % 2_000 };
            sleep(Duration::from_millis(millis)).await;
        }
        probe.set(storm(seed));
        let start = || {
            let worker = builder(&store).concurrency(8).state(runs.clone()).handle(Add::KIND, watched);
            worker.build().unwrap().start()
        };
        let (one, two, three) = (start(), start(), start());
        sleep(Duration::from_secs(60)).await;
        drop(one);
        sleep(Duration::from_secs(20)).await;
        two.stop().await.unwrap();
        probe.set(|_| Fate::Pass);
        sleep(Duration::from_secs(4_000)).await;
        let jobs = enqueued(&store, Add::KIND).await.unwrap();
        assert!(jobs.iter().all(|job| job.state == State::Succeeded), "seed {seed}: {jobs:#?}");
        let panics = jobs.iter().flat_map(|job| &job.history).find(|f| f.reason == Reason::Panic);
        assert!(panics.is_none(), "seed {seed}: {panics:?}");
        three.stop().await.unwrap();
    }
}
