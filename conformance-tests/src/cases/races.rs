//! Many clients at once: what they did is recorded, and no choice of moments may break an invariant.

use std::sync::Arc;

use leasehold_core::layer::{Chaos, Faults};
use leasehold_core::worker::Attempt;
use leasehold_core::{Limits, State, Store, Worker};

use crate::bench::{Bench, CHAOS, RETRY, SUCCEED, Storm, Time, drain, jobs, rage};
use crate::breach::{Kept, Trouble, must, must_eq};
use crate::case::cases;
use crate::history::{MemorySink, Recorder, Rules};
use crate::keep::judge;

cases! {
    /// Eight workers claim, renew, settle, forget, sleep through leases and recover: no invariant is broken.
    [C1, C2, C3, C4, C5, C8, S1, S2, S3] keeps_its_word_in_a_storm_of_workers;
    /// The same, and requests and answers are lost, arrive twice, and are made again or given up.
    [E2, C1, C2, S1, S2] keeps_its_word_while_answers_are_lost;
    /// The same, and requests are held up, or arrive when nobody expects them any more.
    [E2, C1, C2, S1, S2] keeps_its_word_while_requests_come_late;
    /// The same, and all of it at once, while calls are dropped and operators change jobs.
    [E2, E4, C1, C2, S1, S2] keeps_its_word_in_the_worst_of_storms;
    /// Workers run jobs over lines that do all of this to them.
    [E2, C1, C2, C3, S2] keeps_its_word_to_workers_on_bad_lines;
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

async fn keeps_its_word_while_requests_come_late(t: Bench) -> Kept {
    let faults = Faults { delayed: 0.3, late: 0.15, ..Faults::default() };
    rage(&t, Storm { faults, ..Storm::default() }).await
}

async fn keeps_its_word_in_the_worst_of_storms(t: Bench) -> Kept {
    // An operator whose request arrives twice is told what the second one did: nothing, maybe.
    let faults = Faults { repeated: 0.0, ..CHAOS };
    rage(&t, Storm { faults, drops: true, operators: true }).await
}

async fn keeps_its_word_to_workers_on_bad_lines(t: Bench) -> Kept {
    const JOBS: usize = 60;
    let sink = MemorySink::default();
    let ground = Recorder::wrap(t.shared_backend(), "ground", Arc::new(sink.clone()));
    let (journal, time) = (ground.journal().clone(), Time::moved_here(ground.journal(), t.clock()));
    journal.manual_clock(t.clock())?;
    let ground = t.on(Arc::new(ground));
    ground.add_all(jobs(JOBS)).await?;
    let mut working = Vec::new();
    for (number, client) in t.several(2).await?.into_iter().enumerate() {
        let line = Chaos::new(client.shared_backend(), CHAOS, fastrand::u64(..));
        let recorder = Recorder::wrap(Arc::new(line), &format!("worker{number}#1"), Arc::new(sink.clone()));
        let store = Store::with_limits(Arc::new(recorder), Limits::default());
        let worker = Worker::builder(&store).concurrency(2).prefetch(0);
        let worker = worker.handle("work", fails_once).until_idle().build()?;
        working.push(tokio::spawn(worker.run()));
    }
    for worker in working {
        worker.await?;
    }
    drain(&ground, &time).await?;
    journal.last_look(t.another().await?.backend()).await?;
    judge(&t, &sink.events(), &Rules::drained(JOBS).unknown(3).repeats_inside())?;
    Ok(())
}

/// A handler whose jobs need two attempts.
async fn fails_once(attempt: Attempt) -> Result<(), &'static str> {
    if attempt.number() == 1 { Err("not at the first attempt") } else { Ok(()) }
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
