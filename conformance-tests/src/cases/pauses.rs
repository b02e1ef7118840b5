//! The crash matrix once more, with processes that fall asleep where the others died, and go on when all has changed.

use leasehold_core::backend::Answer;

use crate::bench::{Bench, LOST_ATTEMPT, SUCCEED};
use crate::breach::{Kept, must_be, must_eq};
use crate::case::cases;
use crate::processes::{self, Crew, CutPoint, Order, Plan, Said, Step, bound};

cases! {
    /// A producer that falls asleep anywhere in an enqueue, and goes on when others have gone far, harms nothing.
    [P1, P2, E2] survives_a_pause_in_an_enqueue needs [Failpoints, Processes] within bound;
    /// The same of a batch.
    [P3, P2, E2] survives_a_pause_in_a_batch needs [Failpoints, Processes] within bound;
    /// The same of a claim: what it is given by then is nobody else's.
    [C1, C2, C4, E2] survives_a_pause_in_a_claim needs [Failpoints, Processes] within bound;
    /// The same of a renewal: it gives nobody's lease back to whoever has lost it.
    [C1, C2, E2] survives_a_pause_in_a_renewal needs [Failpoints, Processes] within bound;
    /// The same of a success: it ends nothing that is somebody else's.
    [S1, S2, C2] survives_a_pause_in_a_success needs [Failpoints, Processes] within bound;
    /// The same of a retry: it brings back nothing that has ended.
    [S1, S3, C2] survives_a_pause_in_a_retry needs [Failpoints, Processes] within bound;
    /// The same of a recovery: it takes nothing from whoever has it by then.
    [C2, C3, S1] survives_a_pause_in_a_recovery needs [Failpoints, Processes] within bound;
    /// The same of a scheduler: a tick is one job.
    [F2, E2] survives_a_pause_in_a_tick needs [Failpoints, Processes] within bound;
    /// The same of lines for a log.
    [L2, C2] survives_a_pause_in_a_log needs [Failpoints, Processes] within bound;
}

async fn survives_a_pause_in_an_enqueue(t: Bench) -> Kept {
    row(&t, Step::Enqueue).await
}

async fn survives_a_pause_in_a_batch(t: Bench) -> Kept {
    row(&t, Step::EnqueueMany).await
}

async fn survives_a_pause_in_a_claim(t: Bench) -> Kept {
    row(&t, Step::Claim).await
}

async fn survives_a_pause_in_a_renewal(t: Bench) -> Kept {
    row(&t, Step::Renew).await
}

async fn survives_a_pause_in_a_success(t: Bench) -> Kept {
    row(&t, Step::Succeed).await
}

async fn survives_a_pause_in_a_retry(t: Bench) -> Kept {
    row(&t, Step::Retry).await
}

async fn survives_a_pause_in_a_recovery(t: Bench) -> Kept {
    row(&t, Step::Recover).await
}

async fn survives_a_pause_in_a_tick(t: Bench) -> Kept {
    row(&t, Step::Tick).await
}

async fn survives_a_pause_in_a_log(t: Bench) -> Kept {
    row(&t, Step::AppendLogs).await
}

/// One row of the matrix. Where a sleeper holds others up, as within a transaction, they can but wait for it.
async fn row(t: &Bench, step: Step) -> Kept {
    let goes_on = |point: &CutPoint| !point.others_wait;
    processes::row(t, step, "asleep", goes_on, |crew, plan, point| Box::pin(cell(crew, plan, point))).await
}

async fn cell(crew: &mut Crew, plan: &Plan, point: &CutPoint) -> Kept {
    let sleeper = crew.start(&[]).await?;
    must_eq!(crew.ask(sleeper, &Order::SleepAt(point.name.into())).await?, Said::Ready);
    must_eq!(crew.ask(sleeper, &Order::Take(plan.clone())).await?, Said::Step);
    crew.wait_until_stopped(sleeper)?;
    // Its leases run out, and somebody else has the jobs by the time that it goes on.
    crew.pass(120).await?;
    let lost = crew.t.expired(500).await?;
    for lease in &lost {
        must_eq!(crew.t.recover((lease.job, lease.token), LOST_ATTEMPT).await?, Answer::Applied);
    }
    let held = crew.t.claim(500).await?;
    crew.thaw(sleeper)?;
    must_be!(crew.hear_from(sleeper).await?, Said::Answers(answers) if answers.len() == plan.jobs.len());
    for lease in &held {
        crew.t.finish(lease, SUCCEED).await?;
    }
    plan.clear(&crew.t).await?;
    crew.drain().await
}
