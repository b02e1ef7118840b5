//! Many clients that do all at once what clients do, and do it badly: they forget jobs, sleep through leases,
//! repeat themselves and give up. What they did is recorded and judged.

mod chores;
mod client;

use std::sync::Arc;

use futures::StreamExt;
use leasehold_core::backend::{
    Action, Amend, Answer, Capabilities, Claim, ExpiredLease, Filter, Order, PutRegister, Select, Settlement,
    Space, Watch,
};
use leasehold_core::layer::Faults;
use leasehold_core::policy::{Backoff, RetryPolicy, after_expiry};
use leasehold_core::{
    Backend, Due, ManualClock, Payload, QueueName, RegisterName, State, Timestamp, VersionId,
};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

pub(crate) use self::client::Client;
use super::{Bench, SUCCEED, in_time, queue, schedule_name, secs, settlement, text};
use crate::breach::{Breach, Done, Kept, must};
use crate::history::{Journal, MemorySink, Recorder, Rules};
use crate::keep::judge;

const JOBS: usize = 240;
const CLIENTS: usize = 8;
const STEPS: usize = 120;
/// How often each client produces.
const BATCHES: usize = 10;
const LEASE: std::time::Duration = secs(20);
/// How often the schedule has a tick, and how many it has.
const EVERY: std::time::Duration = secs(5);
const TICKS: u32 = 12;

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
    /// Whether operators change jobs and pause a queue meanwhile.
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
    let capabilities = ground.describe(in_time(0)).await?.capabilities;
    let time = Time::moved_here(&journal, t.clock());
    let ground = t.on(Arc::new(ground));
    let first = t.hour();
    let over = text(&first.plus(EVERY * TICKS).as_millis().to_string());
    plan(&ground, over, Some(first), None).await?;
    let mut watchers = JoinSet::new();
    if capabilities.events {
        watch(t, &sink, &mut watchers).await?;
    }
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::new(t, &storm, number, &sink, Arc::clone(&time)).await?;
        clients.spawn(client.work());
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    journal.fault("the clients are gone, and some of them have forgotten what they held")?;
    let drained = drain(&ground, &time).await;
    drop(watchers);
    read_logs(&ground).await?;
    journal.last_look(t.another().await?.backend()).await?;
    judge(t, &sink.events(), &rules(&storm, &capabilities, first))
        .map_err(|breach| breach.during(&format!("in a {storm:?}")))?;
    drained
}

/// What every storm has to show, lest it prove nothing.
fn rules(storm: &Storm, capabilities: &Capabilities, first: Timestamp) -> Rules {
    let Faults { request_lost, reply_lost, late, .. } = storm.faults;
    let lossy = request_lost.max(reply_lost).max(late) > 0.0 || storm.drops;
    let ticks = (0..TICKS).map(|tick| first.plus(EVERY * tick));
    let rules = Rules::drained(JOBS / 2)
        .losses(3)
        .unknown(if lossy { 5 } else { 0 })
        .of_a_store(capabilities)
        .runs_told()
        .granted_within(secs(1_800))
        .ticks(schedule(), ticks)
        .at_least(|least| {
            (least.refused_keys, least.limited, least.counts) = (3, 10, 3);
            (least.plans, least.stops, least.ordered) = (TICKS as usize / 2, CLIENTS / 2, JOBS / 2);
            least.told = if capabilities.events { 10 } else { 0 };
            (least.pauses, least.cancels) = if storm.operators { (1, 1) } else { (0, 0) };
        });
    if storm.faults.repeated > 0.0 { rules.repeats_inside() } else { rules }
}

/// The one schedule.
fn schedule() -> RegisterName {
    schedule_name("every five seconds")
}

/// The queues: one that goes on all the time, and one that operators pause.
fn queues() -> [QueueName; 2] {
    [QueueName::default(), queue("aside")]
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

/// Writes the schedule, whose body says when it has no tick any more.
async fn plan(t: &Bench, body: Payload, next: Option<Timestamp>, expected: Option<VersionId>) -> Done {
    let request = PutRegister { next, ..PutRegister::new(Space::Schedule, schedule(), body, expected) };
    Ok(t.backend().put_register(in_time(0), request).await?)
}

/// Lets one client read everything that is told, and another what is told of one queue.
async fn watch(t: &Bench, sink: &MemorySink, watchers: &mut JoinSet<()>) -> Done {
    let one = queues().into_iter().take(1).collect();
    // Of what other handles do, a store may tell no more than that there is something to look for.
    let here = (t.shared_backend(), Watch { queues: None, logs: true });
    let elsewhere = (t.another().await?.shared_backend(), Watch { queues: Some(one), logs: false });
    for (number, (client, request)) in [here, elsewhere].into_iter().enumerate() {
        let watcher = Recorder::wrap(client, &format!("watcher{number}#1"), Arc::new(sink.clone()));
        let mut events = watcher.watch(in_time(0), request).await?;
        watchers.spawn(async move {
            while events.next().await.is_some() {}
            // A stream ends with the handle that it was opened on.
            drop(watcher);
        });
    }
    Ok(())
}

/// Lets every lease run out and every wait end, until all jobs have ended. What has not is listed and not counted: a
/// process that was killed may leave the counts behind where there are no transactions.
pub(crate) async fn drain(t: &Bench, time: &RwLock<Time>) -> Kept {
    for queue in queues() {
        t.pause(&queue, false).await?;
    }
    let mut left = Filter::default();
    left.states = Some(State::ALL.into_iter().filter(|state| !state.is_terminal()).collect());
    let never = || Breach::new("after the storm jobs are left that never end");
    let mut finished = 0;
    for _ in 0..100 {
        Time::pass(time, 600).await?;
        while chores::fire(t).await? {}
        unpark(t).await?;
        let lost = t.expired(500).await?;
        t.recover_all(lost.iter().map(recovery).collect()).await?;
        loop {
            let claim = Claim { queues: queues().into(), ..t.asking(500) };
            let leases = t.claim_as(claim).await?;
            if leases.is_empty() {
                break;
            }
            finished += leases.len();
            if finished > 10 * JOBS {
                return Err(never());
            }
            let journal = time.read().await.journal.clone();
            leases.iter().try_for_each(|lease| journal.start(lease.job.id, lease.token))?;
            let ends = leases.iter().map(|lease| settlement(lease, SUCCEED)).collect();
            let answers = t.settle_all(ends).await?;
            must!(!answers.contains(&Answer::Lost), "a holder was refused: {answers:?}");
        }
        if t.page(left.clone(), Order::OldestFirst, None, 1).await?.jobs.is_empty() {
            return Ok(());
        }
    }
    Err(never())
}

/// Gives whatever is parked a due time.
async fn unpark(t: &Bench) -> Done {
    let mut filter = Filter::default();
    filter.states = Some(vec![State::Scheduled]);
    let mut after = None;
    loop {
        let select = Select::Matching { filter: filter.clone(), as_of: t.hour(), after, limit: 500 };
        let request = Amend { select, action: Action::Unpark { due: Due::Now }, preview: false };
        after = t.backend().amend(in_time(0), request).await?.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Reads every log from its beginning.
async fn read_logs(t: &Bench) -> Done {
    for job in t.list(&Filter::default(), Order::OldestFirst, 500).await? {
        t.said(job.id).await?;
    }
    Ok(())
}

fn recovery(lost: &ExpiredLease) -> Settlement {
    let policy = RetryPolicy::new(Backoff::Fixed { delay: secs(2) });
    let decision = after_expiry(lost, &policy, 0.0);
    Settlement { job: lost.job, token: lost.token, verdict: decision.verdict, failure: decision.failure }
}
