//! Many clients at once: what they did is recorded, and no choice of moments may break an invariant.

use leasehold_core::State;
use leasehold_core::layer::Faults;

use crate::bench::{Bench, RETRY, SUCCEED, Storm, jobs, rage};
use crate::breach::{Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// Eight workers claim, renew, settle, forget, sleep through leases and recover: no invariant is broken.
    [C1, C2, C3, C4, C5, C8, S1, S2, S3] keeps_its_word_in_a_storm_of_workers;
    /// The same, and requests and answers are lost, arrive twice, and are made again or given up.
    [E2, C1, C2, S1, S2] keeps_its_word_while_answers_are_lost;
    /// The same, and callers drop their calls before the answer comes.
    [E4, E2, C2, S2] keeps_its_word_while_calls_are_dropped;
    /// The same, and operators cancel, requeue, postpone and delete jobs meanwhile.
    [S1, S2, S5, C2] keeps_its_word_under_operators;
    /// Whoever counts while workers race sees every job, once.
    [S2] adds_up_while_workers_race needs [ExactCounts];
}

async fn keeps_its_word_in_a_storm_of_workers(t: Bench) -> Kept {
    rage(&t, Storm::default()).await
}

async fn keeps_its_word_while_answers_are_lost(t: Bench) -> Kept {
    let faults =
        Faults { refused: 0.03, request_lost: 0.08, reply_lost: 0.15, repeated: 0.05, ..Faults::default() };
    rage(&t, Storm { faults, ..Storm::default() }).await
}

async fn keeps_its_word_while_calls_are_dropped(t: Bench) -> Kept {
    rage(&t, Storm { drops: true, ..Storm::default() }).await
}

async fn keeps_its_word_under_operators(t: Bench) -> Kept {
    rage(&t, Storm { operators: true, ..Storm::default() }).await
}

async fn adds_up_while_workers_race(t: Bench) -> Kept {
    const JOBS: u64 = 300;
    t.add_all(jobs(JOBS as usize)).await?;
    let mut workers = Vec::new();
    for client in t.several(4).await? {
        workers.push(tokio::spawn(async move {
            loop {
                let leases = client.claim(3).await?;
                if leases.is_empty() {
                    return Ok::<(), Trouble>(());
                }
                for (i, lease) in leases.iter().enumerate() {
                    let again = i == 0 && lease.job.attempt == 1;
                    client.settle(lease, if again { RETRY } else { SUCCEED }).await?;
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    while workers.iter().any(|worker| !worker.is_finished()) {
        let counts = t.counts().await?;
        must!(counts.total() == JOBS, "{} of {JOBS} jobs were counted: {counts:?}", counts.total());
        tokio::task::yield_now().await;
    }
    for worker in workers {
        worker.await??;
    }
    must_eq!(t.counts().await?.of(State::Succeeded), JOBS);
    Ok(())
}
