//! The crash matrix: each step of a client is cut off at each point that it comes by, taken again by another client,
//! and must then have been taken once.

use std::sync::Arc;

use leasehold_core::backend::Answer;
use leasehold_core::layer::Cuts;

use crate::bench::{Bench, jobs};
use crate::breach::{Breach, Kept, must, must_eq};
use crate::case::cases;
use crate::history::{FileSink, Recorder, Rules};
use crate::processes::{self, Crew, CutPoint, Effect, Hour, Order, Plan, Said, Step, WORKER_POINTS, bound};

cases! {
    /// Wherever a producer ends, its enqueue can be made again, and leaves one job.
    [P1, P2, E2] survives_a_crash_in_an_enqueue needs [Failpoints] within bound;
    /// Wherever a producer of a batch ends, the batch can be made again, and leaves each job once.
    [P3, P2, E2] survives_a_crash_in_a_batch needs [Failpoints] within bound;
    /// Wherever a worker ends that claims, its claim can be made again, and has given out each job once.
    [C1, C4, E2] survives_a_crash_in_a_claim needs [Failpoints] within bound;
    /// Wherever a worker ends that renews, its leases hold, and can be renewed again.
    [C1, C2, E2] survives_a_crash_in_a_renewal needs [Failpoints] within bound;
    /// Wherever a worker ends that settles jobs as done, they are done once.
    [S1, S2, C2, E2] survives_a_crash_in_a_success needs [Failpoints] within bound;
    /// Wherever a worker ends that settles jobs for another try, they get one more.
    [S3, S2, C2, E2] survives_a_crash_in_a_retry needs [Failpoints] within bound;
    /// Wherever a worker ends that takes back lost leases, they are taken back once.
    [C3, C5, S2, E2] survives_a_crash_in_a_recovery needs [Failpoints] within bound;
    /// Wherever a scheduler ends, a tick is one job, and the schedule moves on.
    [F2, E2] survives_a_crash_in_a_tick needs [Failpoints] within bound;
    /// Wherever a worker ends that writes lines to a log, each line is there once.
    [L2, E2] survives_a_crash_in_a_log needs [Failpoints] within bound;
    /// Wherever a worker ends, whatever it had begun is done by others.
    [C3, C4, S2] survives_the_crash_of_a_worker needs [Failpoints, Processes] within bound;
}

async fn survives_a_crash_in_an_enqueue(t: Bench) -> Kept {
    row(&t, Step::Enqueue).await
}

async fn survives_a_crash_in_a_batch(t: Bench) -> Kept {
    row(&t, Step::EnqueueMany).await
}

async fn survives_a_crash_in_a_claim(t: Bench) -> Kept {
    row(&t, Step::Claim).await
}

async fn survives_a_crash_in_a_renewal(t: Bench) -> Kept {
    row(&t, Step::Renew).await
}

async fn survives_a_crash_in_a_success(t: Bench) -> Kept {
    row(&t, Step::Succeed).await
}

async fn survives_a_crash_in_a_retry(t: Bench) -> Kept {
    row(&t, Step::Retry).await
}

async fn survives_a_crash_in_a_recovery(t: Bench) -> Kept {
    row(&t, Step::Recover).await
}

async fn survives_a_crash_in_a_tick(t: Bench) -> Kept {
    row(&t, Step::Tick).await
}

async fn survives_a_crash_in_a_log(t: Bench) -> Kept {
    row(&t, Step::AppendLogs).await
}

/// One row of the matrix: a step, cut off at every point.
async fn row(t: &Bench, step: Step) -> Kept {
    processes::row(t, step, "cut off", |_| true, |crew, plan, point| Box::pin(cell(crew, plan, point))).await
}

async fn cell(crew: &mut Crew, plan: &Plan, point: &CutPoint) -> Kept {
    cut_off(crew, plan, point.name).await?;
    let fresh = crew.t.clone();
    let (taken, all) = (plan.taken(&fresh).await?, plan.jobs.len());
    let atomic = plan.step == Step::EnqueueMany && fresh.capabilities().await?.atomic_batch;
    let allowed = match point.effect {
        Effect::None => taken == 0,
        Effect::All => taken == all,
        Effect::Some => !atomic || taken == 0 || taken == all,
    };
    must!(allowed, "{taken} of {all} were done, and {:?} may have been", point.effect);
    let cuts = Cuts::new(fresh.shared_backend());
    for _ in 0..2 {
        let answers = plan.take(&fresh, &cuts).await?;
        must_eq!(answers.len(), all);
        must!(!answers.contains(&Answer::Lost), "taken again it was answered {answers:?}");
    }
    must_eq!(plan.wrong(&fresh).await?, None);
    plan.clear(&fresh).await?;
    crew.drain().await
}

/// Takes the step and cuts it off: with its process where there can be others, else by dropping the call.
async fn cut_off(crew: &mut Crew, plan: &Plan, point: &str) -> Kept {
    if crew.t.harness().elsewhere().is_none() {
        return drop_at(crew, plan, point).await;
    }
    let victim = crew.start(&[]).await?;
    must_eq!(crew.ask(victim, &Order::DieAt(point.into())).await?, Said::Ready);
    must_eq!(crew.ask(victim, &Order::Take(plan.clone())).await?, Said::Gone);
    crew.bury(victim)?;
    Ok(())
}

async fn drop_at(crew: &mut Crew, plan: &Plan, point: &str) -> Kept {
    let name = format!("dropped at {point}, {}", plan.jobs[0]);
    let sink = FileSink::append(crew.history(&name)).map_err(|error| Breach::new(error.to_string()))?;
    let cuts = Arc::new(Cuts::holding(crew.t.another().await?.shared_backend(), point));
    let victim = crew.t.on(Arc::new(Recorder::wrap(cuts.clone(), &name, Arc::new(sink))));
    tokio::select! {
        biased;
        () = cuts.reached() => Ok(()),
        taken = plan.take(&victim, &cuts) => Err(Breach::new(format!("it was never there, and answered {taken:?}"))),
    }
}

async fn survives_the_crash_of_a_worker(t: Bench) -> Kept {
    const JOBS: usize = 4;
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    for (point, _) in WORKER_POINTS {
        crew.t.add_all(jobs(JOBS)).await?;
        // Half of them are held by somebody who is gone.
        must_eq!(crew.t.claim(JOBS / 2).await?.len(), JOBS / 2);
        crew.pass(120).await?;
        let victim = crew.start(&[]).await?;
        must_eq!(crew.ask(victim, &Order::DieAt((*point).into())).await?, Said::Ready);
        must_eq!(crew.ask(victim, &Order::Work).await?, Said::Gone, "a worker that was to end at {point}");
        crew.bury(victim)?;
        crew.drain().await?;
    }
    let worked = crew.start(&[]).await?;
    crew.t.add_all(jobs(JOBS)).await?;
    must_eq!(crew.ask(worked, &Order::Work).await?, Said::Count(JOBS as u64));
    let lost = WORKER_POINTS.len() * JOBS / 2;
    crew.verdict(&Rules::drained(WORKER_POINTS.len() * JOBS).losses(lost)).await?;
    Ok(())
}
