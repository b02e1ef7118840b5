//! F2 by real schedulers: many at once, and in processes that are killed, frozen and have wrong clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use leasehold_core::backend::{Filter, Order as Listed};
use leasehold_core::schedule::{CatchUp, Origin, Rule, Schedule};
use leasehold_core::{JobId, RegisterName, Store, Timestamp};

use crate::bench::{Bench, SUCCEED, job, schedule_name, secs, settlement};
use crate::breach::{Breach, Done, Kept, Trouble, must, must_be, must_eq};
use crate::case::cases;
use crate::history::{MemorySink, Recorder, Rules};
use crate::keep::judge;
use crate::options::{ENOUGH_TICKS, options};
use crate::processes::{Crew, Hour, Order, Said, Schedulers, Skew, bound};

cases! {
    /// Two hundred schedulers at once make one job of each tick, under the tick's id, and none is missed.
    [F2, P2] makes_one_job_of_a_tick_for_two_hundred_schedulers;
    /// Ticks that no scheduler was there for are made up for as the schedule says, however many schedulers come at once then.
    [F2] makes_up_for_missed_ticks_as_a_schedule_says;
    /// Schedulers in processes of which one is an hour fast and one slow are killed at any moment, and die and sleep between
    /// their writes: each tick is one job, and none is missed beyond what its schedule says.
    [F2, E2] loses_no_tick_to_schedulers_that_die needs [Processes, Failpoints, Skew] within bound;
    /// Schedulers whose clocks are an hour fast and slow fire by the store's.
    [F2, C8] fires_ticks_by_its_own_clock needs [Processes, OwnClock, Skew] within bound;
}

/// The ticks of each schedule, in order.
type Ticks = BTreeMap<RegisterName, Vec<Timestamp>>;

/// How long after its tick a job still counts as on time.
const ON_TIME: u64 = 60;

async fn put(store: &Store, name: &str, rule: Rule, catch_up: CatchUp) -> Done<RegisterName> {
    let name = schedule_name(name);
    store.schedules().put(&name, Schedule::new(rule, job())?.catch_up(catch_up)).await?;
    Ok(name)
}

/// The ticks of which there are jobs. Each job has the id of its tick, and so no tick has two.
async fn fired(t: &Bench) -> Kept<Ticks> {
    let mut fired = Ticks::new();
    for job in t.list(&Filter::default(), Listed::OldestFirst, 500).await? {
        let Some(Origin { schedule, tick: Some(tick) }) = Origin::of(&job) else {
            return Err(Breach::new(format!("this is no job of a tick: {job:?}")));
        };
        must_eq!(job.id, JobId::of_tick(&schedule, tick), "the job of {schedule} at {tick:?}");
        fired.entry(schedule).or_default().push(tick);
    }
    fired.values_mut().for_each(|ticks| ticks.sort_unstable());
    let jobs: usize = fired.values().map(Vec::len).sum();
    must_eq!(t.counts().await?.enqueued, jobs as u64, "how many jobs were ever taken in");
    Ok(fired)
}

/// Exactly these ticks became jobs.
fn must_be_these(fired: &Ticks, wanted: &Ticks) -> Kept {
    for (name, wanted) in wanted {
        let fired = fired.get(name).map(Vec::as_slice).unwrap_or_default();
        let missed: Vec<_> = wanted.iter().filter(|tick| !fired.contains(tick)).collect();
        let made_up: Vec<_> = fired.iter().filter(|tick| !wanted.contains(tick)).collect();
        must!(missed.is_empty(), "{name} missed {missed:?}");
        must!(made_up.is_empty(), "{name} fired at {made_up:?}, where it has no tick to fire");
        must_eq!(fired.len(), wanted.len(), "jobs of {name}");
    }
    must_eq!(fired.len(), wanted.len(), "schedules that fired");
    Ok(())
}

/// The ticks of a rule after one moment and until another.
fn between(rule: &Rule, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let all = std::iter::successors(rule.next(after), |tick| rule.next(*tick));
    all.take_while(|tick| *tick <= until).collect()
}

fn rules(wanted: &Ticks) -> Rules {
    let jobs: usize = wanted.values().map(Vec::len).sum();
    let rules = Rules::drained(jobs).at_least(|least| least.plans = jobs / 4);
    wanted.iter().fold(rules, |rules, (name, ticks)| rules.ticks(name.clone(), ticks.iter().copied()))
}

/// Lets the jobs of all ticks succeed.
async fn finish_all(t: &Bench) -> Done {
    loop {
        let leases = t.claim(500).await?;
        if leases.is_empty() {
            return Ok(());
        }
        t.settle_all(leases.iter().map(|lease| settlement(lease, SUCCEED)).collect()).await?;
    }
}

async fn makes_one_job_of_a_tick_for_two_hundred_schedulers(t: Bench) -> Kept {
    const SCHEDULERS: usize = 200;
    let sink = MemorySink::default();
    let mut clients = Vec::new();
    for (number, client) in t.several(4).await?.into_iter().enumerate() {
        let process = format!("scheduler{number}#1");
        let recorder = Recorder::wrap(client.shared_backend(), &process, Arc::new(sink.clone()));
        recorder.journal().manual_clock(t.clock())?;
        clients.push((recorder.journal().clone(), client.on(Arc::new(recorder))));
    }
    let (journal, mine) = &clients[0];
    let (from, rule) = (t.hour(), Rule::every(secs(1), t.hour())?);
    let name = put(&mine.store(), "every second", rule.clone(), CatchUp::default()).await?;
    for _ in 0..4 {
        journal.advance(t.clock(), secs(2))?;
        let stores = clients.iter().map(|(_, client)| client.store()).cycle().take(SCHEDULERS);
        let look = async |store: Store| store.schedules().fire_due().await;
        try_join_all(stores.map(look)).await?;
    }
    let wanted = Ticks::from([(name.clone(), between(&rule, from, t.hour()))]);
    must_eq!(wanted[&name].len(), 8);
    must_be_these(&fired(mine).await?, &wanted)?;
    let record = mine.store().schedules().get(&name).await?;
    let runs: Vec<_> = record.iter().flat_map(|record| &record.runs).map(|run| (run.job, run.tick)).collect();
    let wanted_runs: Vec<_> =
        wanted[&name].iter().map(|tick| (JobId::of_tick(&name, *tick), Some(*tick))).collect();
    must_eq!(runs, wanted_runs, "what the schedule remembers");
    finish_all(mine).await?;
    journal.last_look(t.another().await?.backend()).await?;
    judge(&t, &sink.events(), &rules(&wanted))?;
    Ok(())
}

async fn makes_up_for_missed_ticks_as_a_schedule_says(t: Bench) -> Kept {
    const SCHEDULERS: usize = 20;
    let (from, rule) = (t.hour(), Rule::every(secs(10), t.hour())?);
    let mut names = Vec::new();
    for (name, catch_up) in [
        ("none", CatchUp::Skip),
        ("one", CatchUp::Once),
        ("three", CatchUp::All(3)),
        ("all", CatchUp::All(99)),
    ] {
        names.push(put(&t.store(), name, rule.clone(), catch_up).await?);
    }
    t.advance(secs(600));
    let clients = t.several(4).await?;
    let stores = clients.iter().map(Bench::store).cycle().take(SCHEDULERS);
    let look = async |store: Store| store.schedules().fire_due().await;
    try_join_all(stores.map(look)).await?;
    let all = between(&rule, from, t.hour());
    // The last minute's are on time.
    let (missed, on_time) = all.split_at(60 - 7);
    let made_up = [0, 1, 3, missed.len()];
    let wanted = names.into_iter().zip(made_up.map(|some| [&missed[..some], on_time].concat())).collect();
    must_be_these(&fired(&t).await?, &wanted)
}

async fn loses_no_tick_to_schedulers_that_die(t: Bench) -> Kept {
    const OUTAGE: u64 = 300;
    let mut schedulers = Schedulers::gather(&t).await?;
    let from = schedulers.crew.t.hour();
    let kept = [
        ("all", Rule::every(secs(1), from)?, CatchUp::All(1_000)),
        ("one", Rule::cron("*/2 * * * * *", "UTC")?, CatchUp::Once),
        ("none", Rule::every(secs(3), from)?, CatchUp::Skip),
    ];
    let store = schedulers.crew.t.store();
    for (name, rule, catch_up) in &kept {
        put(&store, name, rule.clone(), *catch_up).await?;
    }
    let told =
        |until: Timestamp| kept.iter().map(|(_, rule, _)| between(rule, from, until).len()).sum::<usize>();
    while told(schedulers.crew.t.hour()) < options().ticks as usize || !schedulers.had_all_faults() {
        schedulers.round().await?;
    }
    schedulers.come_to_rest().await?;
    // Then nobody is there for minutes, and all come back at once.
    let gone = settle(&schedulers.crew).await?;
    schedulers.crew.pass(OUTAGE).await?;
    schedulers.come_back().await?;
    let now = schedulers.crew.t.hour();
    must_eq!(unsettled(&schedulers.crew.t).await?, Vec::<RegisterName>::new());
    let on_time = now.minus(secs(ON_TIME));
    let mut wanted = Ticks::new();
    for (name, rule, catch_up) in &kept {
        let (missed, late): (Vec<_>, Vec<_>) =
            between(rule, gone, now).into_iter().partition(|tick| *tick < on_time);
        let made_up = match catch_up {
            CatchUp::Skip => 0,
            CatchUp::Once => 1,
            CatchUp::All(_) => missed.len(),
        };
        let all = [&between(rule, from, gone)[..], &missed[..made_up], &late[..]].concat();
        wanted.insert(schedule_name(name), all);
    }
    let t = schedulers.crew.t.clone();
    must_be_these(&fired(&t).await?, &wanted)?;
    finish_all(&t).await?;
    if options().ticks > ENOUGH_TICKS {
        eprintln!("{} ticks: {}", wanted.values().map(Vec::len).sum::<usize>(), schedulers.faults());
    }
    schedulers.crew.verdict(&rules(&wanted)).await?;
    Ok(())
}

/// Fires what is left to be fired, and lets time pass until what was begun by who died may be taken over. Answers the hour
/// until which all is decided.
async fn settle(crew: &Crew) -> Kept<Timestamp> {
    for _ in 0..100 {
        let hour = crew.t.hour();
        crew.t.store().schedules().fire_due().await?;
        if unsettled(&crew.t).await?.is_empty() {
            return Ok(hour);
        }
        crew.pass(1).await?;
    }
    Err(Breach::new(format!("never fired: {:?}", unsettled(&crew.t).await?)))
}

/// The schedules that have ticks which are due or just fire.
async fn unsettled(t: &Bench) -> Done<Vec<RegisterName>> {
    let all = t.store().schedules().list(None, 10).await?;
    let is_due = |next: Option<Timestamp>| next.is_none_or(|next| next <= t.hour());
    let left = all.into_iter().filter(|record| !record.firing.is_empty() || is_due(record.next));
    Ok(left.map(|record| record.name).collect())
}

async fn fires_ticks_by_its_own_clock(t: Bench) -> Kept {
    const HOUR: i64 = 3_600_000;
    const SECONDS: u64 = 5;
    let mut crew = Crew::gather(&t, Hour::Stores).await?;
    let skewed = |millis| Skew::new(millis).map_err(|why| Breach::new(why.to_string()));
    for skew in [skewed(HOUR)?, skewed(-HOUR)?] {
        let number = crew.start(&skew.environment()).await?;
        must_be!(crew.ask(number, &Order::Hours).await?, Said::Hours(..));
    }
    let from = crew.t.store().now().await?;
    let rule = Rule::every(secs(1), from)?;
    let name = put(&crew.t.store(), "every second", rule.clone(), CatchUp::All(1_000)).await?;
    for number in [0, 1] {
        crew.tell(number, &Order::Recur(SECONDS))?;
    }
    let mut worked = 0;
    for number in [0, 1] {
        match crew.hear_from(number).await? {
            Said::Count(succeeded) => worked += succeeded,
            other => return Err(Breach::new(format!("child {number} said {other:?}"))),
        }
    }
    let until = crew.t.store().now().await?;
    finish_all(&crew.t).await?;
    let fired = fired(&crew.t).await?;
    let ticks = fired.get(&name).ok_or_else(|| Trouble::Unmet("no tick was fired".into()))?;
    // They stop some time before that hour, and no tick between the first and the last is missing.
    let last = *ticks.last().ok_or_else(|| Trouble::Unmet("no tick was fired".into()))?;
    must!(last <= until && ticks.len() as u64 >= SECONDS / 2, "until {until:?} these were fired: {ticks:?}");
    must!(worked > 0, "no job of a tick was worked on");
    let wanted = Ticks::from([(name, between(&rule, from, last))]);
    must_be_these(&fired, &wanted)?;
    crew.verdict(&rules(&wanted)).await?;
    Ok(())
}
