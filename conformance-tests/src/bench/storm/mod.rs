//! Many clients that do all at once what clients do, and do it badly: they forget jobs, sleep through leases,
//! repeat themselves and give up. What they did is recorded and judged.

mod racer;

use std::sync::Arc;

use leasehold_core::backend::{Answer, ExpiredLease, Filter, Order, Settlement};
use leasehold_core::layer::{Chaos, Faults};
use leasehold_core::policy::{Backoff, RetryPolicy, after_expiry};
use leasehold_core::{Backend, ManualClock, State};
use tokio::sync::RwLock;

pub(crate) use self::racer::Racer;
use super::{Bench, SUCCEED, secs, settlement};
use crate::breach::{Breach, Done, Kept, must};
use crate::history::{Journal, MemorySink, Recorder, Rules, check};

const JOBS: usize = 240;
const WORKERS: usize = 8;
const STEPS: usize = 120;
/// How often each worker produces.
const BATCHES: usize = 10;

/// All that a bad line does, but what never answers.
pub(crate) const CHAOS: Faults = Faults {
    refused: 0.03,
    request_lost: 0.05,
    reply_lost: 0.12,
    repeated: 0.05,
    delayed: 0.2,
    late: 0.05,
    hung: 0.0,
};

/// What sort of weather it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Storm {
    /// How many requests and answers are lost.
    pub(crate) faults: Faults,
    /// Whether operators change jobs meanwhile.
    pub(crate) operators: bool,
    /// Whether callers drop their calls before the answer comes.
    pub(crate) drops: bool,
}

/// Lets the storm rage, waits until every job has ended, and judges what was recorded.
pub(crate) async fn rage(t: &Bench, storm: Storm) -> Kept {
    let sink = MemorySink::default();
    let ground = Recorder::wrap(t.shared_backend(), "ground", Arc::new(sink.clone()));
    let journal = ground.journal().clone();
    journal.manual_clock(t.clock())?;
    let time = Time::moved_here(&journal, t.clock());
    let mut tasks = Vec::new();
    for number in 0..WORKERS {
        let racer = racer(t, &storm, number, &sink, &time).await?;
        tasks.push(tokio::spawn(racer.race(STEPS)));
    }
    for task in tasks {
        task.await??;
    }
    drain(&t.on(Arc::new(ground)), &time).await?;
    journal.last_look(t.another().await?.backend()).await?;
    let lossy = storm.faults.reply_lost > 0.0 || storm.drops;
    let rules = Rules::drained(JOBS / 2).losses(3).unknown(if lossy { 5 } else { 0 });
    let repeats = storm.faults.repeated > 0.0;
    let verdict = check(&sink.events(), &if repeats { rules.repeats_inside() } else { rules });
    must!(verdict.is_valid(), "in a {storm:?}: {verdict}");
    Ok(())
}

/// The clock, which one client at a time may move, and none while a claim is under way: whoever repeats a claim
/// does so within its lease, since what it was given may be somebody else's by then.
pub(crate) struct Time {
    journal: Journal,
    clock: ManualClock,
    /// Whether it is moved elsewhere, and not here.
    stands: bool,
}

impl Time {
    /// A clock that this process moves.
    pub(crate) fn moved_here(journal: &Journal, clock: &ManualClock) -> Arc<RwLock<Self>> {
        Arc::new(RwLock::new(Self { journal: journal.clone(), clock: clock.clone(), stands: false }))
    }

    /// A clock that another process moves.
    fn moved_elsewhere(journal: &Journal, clock: &ManualClock) -> Arc<RwLock<Self>> {
        Arc::new(RwLock::new(Self { journal: journal.clone(), clock: clock.clone(), stands: true }))
    }

    /// Moves the clock.
    pub(crate) async fn pass(time: &RwLock<Self>, seconds: u64) -> Done {
        let time = time.write().await;
        if !time.stands {
            time.journal.advance(&time.clock, secs(seconds))?;
        }
        Ok(())
    }
}

/// One of the clients of a storm, over a line of its own.
async fn racer(
    t: &Bench,
    storm: &Storm,
    number: usize,
    sink: &MemorySink,
    time: &Arc<RwLock<Time>>,
) -> Done<Racer> {
    let seed = fastrand::u64(..);
    let client = t.another().await?;
    let line: Arc<dyn Backend> = Arc::new(Chaos::new(client.shared_backend(), storm.faults, seed));
    let recorder = Recorder::wrap(line, &format!("w{number}#1"), Arc::new(sink.clone()));
    let journal = recorder.journal().clone();
    Ok(Racer::new(client.on(Arc::new(recorder)), journal, Arc::clone(time), *storm, seed))
}

/// Lets every lease run out and every wait end, until all jobs have ended.
pub(crate) async fn drain(t: &Bench, time: &RwLock<Time>) -> Kept {
    let alive = State::ALL.into_iter().filter(|state| !state.is_terminal()).collect();
    let mut left = Filter::default();
    left.states = Some(alive);
    for _ in 0..1_000 {
        Time::pass(time, 600).await?;
        let lost = t.expired(500).await?;
        t.recover_all(lost.iter().map(recovery).collect()).await?;
        let held = t.claim(500).await?;
        let answers = t.settle_all(held.iter().map(|lease| settlement(lease, SUCCEED)).collect()).await?;
        must!(!answers.contains(&Answer::Lost), "a holder was refused: {answers:?}");
        if t.page(left.clone(), Order::OldestFirst, None, 1).await?.jobs.is_empty() {
            return Ok(());
        }
    }
    Err(Breach::new("jobs are left that never end"))
}

fn recovery(lost: &ExpiredLease) -> Settlement {
    let policy = RetryPolicy::new(Backoff::Fixed { delay: secs(2) });
    let decision = after_expiry(lost, &policy, 0.0);
    Settlement { job: lost.job, token: lost.token, verdict: decision.verdict, failure: decision.failure }
}
