//! Jobs that go from one store to another, on stores in memory, in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use leasehold_core::backend::{Action, Filter, Level, LogSource, Order, Pause, QueueSettings, SetQueue};
use leasehold_core::client::Account;
use leasehold_core::flow::{Flow, FlowState};
use leasehold_core::layer::Operation;
use leasehold_core::policy::BoxError;
use leasehold_core::worker::{RunningWorker, WorkerBuilder};
use leasehold_core::{
    Attempt, ErrorKind, HeldJob, JobId, JobRecord, Kind, NewJob, QueueName, State, Store, UniqueKey,
    UniqueScope, Worker,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::probe::{Fate, Probe};
use crate::schedules::{MINUTE, every};
use crate::store;

fn job(kind: &str) -> NewJob {
    NewJob::dynamic(kind, &()).unwrap()
}

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

async fn all(store: &Store) -> Vec<JobRecord> {
    store.list_all(Filter::default(), Order::OldestFirst).try_collect().await.unwrap()
}

/// Which jobs ran in a program, and how often.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<BTreeMap<JobId, u32>>>);

impl Ran {
    fn of(&self, job: JobId) -> u32 {
        self.0.lock().unwrap().get(&job).copied().unwrap_or(0)
    }

    /// A worker whose jobs end by their kind, some at their second attempt.
    fn worker(&self, store: &Store) -> RunningWorker {
        let ran = self.clone();
        let handler = move |attempt: Attempt| {
            let ran = ran.clone();
            async move {
                let (id, kind) = (attempt.job().id, attempt.job().kind.clone());
                attempt.log(Level::Info, format!("run {}", attempt.job().attempt));
                sleep(Duration::from_millis(20)).await;
                if attempt.job().attempt == 1 && kind.as_str() == "twice" {
                    return Err("not yet".into());
                }
                *ran.0.lock().unwrap().entry(id).or_default() += 1;
                if kind.as_str() == "bad" { Err("bad".into()) } else { Ok::<(), BoxError>(()) }
            }
        };
        let all = ["good", "twice", "bad"];
        let of = |worker: WorkerBuilder, kind| worker.handle(kind, handler.clone());
        all.into_iter().fold(Worker::builder(store), of).build().unwrap().start()
    }

    /// Works for so long.
    async fn work(&self, store: &Store, time: Duration) {
        let worker = self.worker(store);
        sleep(time).await;
        worker.stop().await.unwrap();
    }
}

async fn hold(store: &Store) -> HeldJob {
    store.queue("default").unwrap().consumer().next().await.unwrap().unwrap()
}

/// A store with jobs in every state that there is while nobody works.
async fn filled(store: &Store) -> Vec<JobId> {
    let jobs = store.queue("default").unwrap();
    let mut ids = Vec::new();
    for n in 0..40 {
        let kind = ["good", "twice", "bad"][n % 3];
        ids.push(jobs.enqueue(job(kind).max_attempts(2)).await.unwrap());
    }
    let worker = Ran::default().worker(store);
    while all(store).await.iter().filter(|job| job.state.is_terminal()).count() < 20 {
        sleep(Duration::from_millis(5)).await;
    }
    worker.stop().await.unwrap();
    for n in 0..40_u64 {
        ids.push(jobs.enqueue(job("good").delay(Duration::from_secs(n % 3))).await.unwrap());
    }
    ids.push(jobs.enqueue(job("good").parked()).await.unwrap());
    ids
}

#[tokio::test(start_paused = true)]
async fn moves_all_there_is_as_it_is() {
    let (from, to) = (store(), store());
    let ids = filled(&from).await;
    let before: BTreeMap<JobId, JobRecord> = all(&from).await.into_iter().map(|job| (job.id, job)).collect();
    let mut logs = BTreeMap::new();
    for id in &ids {
        let lines = from.logs(LogSource::Job(*id), 0, 100).await.unwrap().lines;
        logs.insert(*id, lines.into_iter().map(|line| (line.attempt, line.message)).collect::<Vec<_>>());
    }
    assert!(logs.values().any(|lines| lines.len() == 2), "some ran twice");
    let paused = QueueSettings { pause: Some(Pause::default()), ..QueueSettings::default() };
    let request = SetQueue { queue: queue("other"), settings: paused.clone() };
    from.backend().set_queue(from.deadline(), request).await.unwrap();
    from.schedules().put("s", every(&from, MINUTE).await).await.unwrap();

    let mut told = Vec::new();
    let account = from.move_to(&to).run(|account| told.push(account.clone())).await.unwrap();
    assert_eq!((account.met, account.taken, account.there, account.held), (81, 81, 0, 0));
    assert!(account.adds_up() && told.iter().all(Account::adds_up) && told.len() > 1, "{told:?}");
    assert_eq!((account.queues, account.schedules, account.busy()), (1, 1, 0));
    assert_eq!(account.lines as usize, logs.values().map(Vec::len).sum::<usize>());

    assert_eq!(all(&from).await, []);
    let after = all(&to).await;
    assert_eq!(after.len(), 81);
    let now = to.now().await.unwrap();
    for job in after {
        let mut was = before[&job.id].clone();
        was.look(now);
        assert_eq!(job, was);
        let lines = to.logs(LogSource::Job(job.id), 0, 100).await.unwrap().lines;
        let lines: Vec<_> = lines.into_iter().map(|line| (line.attempt, line.message)).collect();
        assert_eq!(lines, logs[&job.id]);
    }
    let there = to.queues().await.unwrap();
    assert!(there.iter().any(|record| record.queue == queue("other") && record.settings == paused));
    assert_eq!(from.schedules().get("s").await.unwrap(), None);
    assert!(!to.schedules().get("s").await.unwrap().unwrap().schedule.paused);
    // Nothing is left to do.
    let again = from.move_to(&to).run(|_| {}).await.unwrap();
    assert_eq!((again.met, again.queues, again.schedules), (0, 0, 0));
}

/// Each job is in one store, and has run as often as its kind says.
async fn check(from: &Store, to: &Store, ran: &Ran, ids: &[JobId]) {
    let (here, there) = (all(from).await, all(to).await);
    assert_eq!((here.len(), there.len()), (0, ids.len()));
    for job in there {
        assert!(ids.contains(&job.id));
        assert!(job.state.is_terminal(), "{job:?}");
        let times = if job.kind.as_str() == "bad" { job.attempt } else { 1 };
        assert_eq!(ran.of(job.id), times, "{job:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn loses_nothing_and_runs_nothing_twice_while_all_are_busy() {
    let (from, to) = (store(), store());
    let (ran, mut ids) = (Ran::default(), Vec::new());
    let workers = [&from, &from, &to].map(|store| ran.worker(store));
    let moving = {
        let (from, to) = (from.clone(), to.clone());
        tokio::spawn(async move { from.move_to(&to).run(|_| {}).await })
    };
    for n in 0..300_u64 {
        let new = job(["good", "twice", "bad"][n as usize % 3]).max_attempts(2);
        let new = if n % 7 == 0 { new.delay(Duration::from_millis(n * 3)) } else { new };
        let store = if n % 4 == 3 { &to } else { &from };
        ids.push(store.queue("default").unwrap().enqueue(new).await.unwrap());
        if n % 10 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let account = moving.await.unwrap().unwrap();
    assert!(account.adds_up() && account.taken > 0, "{account:?}");
    from.move_to(&to).run(|_| {}).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    for worker in workers {
        worker.stop().await.unwrap();
    }
    check(&from, &to, &ran, &ids).await;
}

/// Runs a move that is cut off at each of its calls in turn, and goes on from there with another.
#[tokio::test(start_paused = true)]
async fn goes_on_where_it_was_cut_off() {
    for side in ["from", "to"] {
        for fate in [Fate::Hang, Fate::Mute] {
            let mut cut = 0;
            while cut_off_at(side, fate, cut).await {
                cut += 1;
            }
            assert!(cut >= 5, "only {cut} calls of {side}");
        }
    }
}

async fn cut_off_at(side: &str, fate: Fate, cut: usize) -> bool {
    let (from, to) = (Probe::quiet(), Probe::quiet());
    let ids = {
        let store = from.undisturbed();
        let jobs = store.queue("default").unwrap();
        let mut ids = Vec::new();
        for n in 0..6_u64 {
            ids.push(jobs.enqueue(job("good").delay(Duration::from_secs(n % 2))).await.unwrap());
        }
        store.cancel(ids[0]).await.unwrap();
        store.schedules().put("s", every(&store, MINUTE).await).await.unwrap();
        ids
    };
    let schedule = from.undisturbed().schedules().get("s").await.unwrap().unwrap();
    let calls = Arc::new(Mutex::new(0));
    let probe = if side == "from" { &from } else { &to };
    let seen = Arc::clone(&calls);
    probe.set(move |_| {
        let mut calls = seen.lock().unwrap();
        *calls += 1;
        if *calls > cut { fate } else { Fate::Pass }
    });
    let (here, there) = (from.store(), to.store());
    let moved = timeout(Duration::from_secs(3), here.move_to(&there).run(|_| {})).await;
    probe.set(|_| Fate::Pass);
    // Whoever is given a job meanwhile is the only one.
    let ran = Ran::default();
    for store in [from.undisturbed(), to.undisturbed()] {
        ran.work(&store, Duration::from_secs(3)).await;
    }
    let (here, there) = (from.undisturbed(), to.undisturbed());
    let account = here.move_to(&there).run(|_| {}).await.unwrap();
    assert!(account.adds_up(), "{account:?}");
    ran.work(&there, Duration::from_secs(3)).await;
    assert_eq!(all(&here).await, [], "cut off at call {cut} of {side}");
    let found = all(&there).await;
    assert_eq!(found.len(), ids.len(), "cut off at call {cut} of {side}");
    for job in &found {
        let times = u32::from(job.id != ids[0]);
        assert_eq!(ran.of(job.id), times, "{job:?}, cut off at call {cut} of {side} by {fate:?}");
    }
    assert_eq!(here.schedules().get("s").await.unwrap(), None);
    let arrived = there.schedules().get("s").await.unwrap().unwrap();
    assert_eq!((&arrived.schedule, arrived.next), (&schedule.schedule, schedule.next), "at {cut} of {side}");
    moved.is_err()
}

#[tokio::test(start_paused = true)]
async fn one_moves_at_a_time() {
    let (from, to) = (store(), store());
    from.queue("default").unwrap().enqueue(job("good")).await.unwrap();
    // It waits for what runs, and keeps its lock.
    let held = hold(&from).await;
    let first = tokio::spawn({
        let (from, to) = (from.clone(), to.clone());
        async move { from.move_to(&to).run(|_| {}).await }
    });
    sleep(Duration::from_secs(1)).await;
    let error = from.move_to(&to).run(|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("somebody else is moving"), "{error}");
    assert!(!first.is_finished());
    // A copy changes nothing here.
    from.copy_to(&store()).run(|_| {}).await.unwrap();
    held.release().await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().taken, 1);
}

#[tokio::test(start_paused = true)]
async fn no_store_moves_into_itself() {
    let probe = Probe::quiet();
    let store = probe.undisturbed();
    let id = store.queue("default").unwrap().enqueue(job("good")).await.unwrap();
    let error = store.move_to(&probe.store()).run(|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(store.find(id).await.unwrap().unwrap().state, State::Queued);
}

#[tokio::test(start_paused = true)]
async fn waits_for_what_runs_as_long_as_it_may() {
    let (from, to) = (store(), store());
    let id = from.queue("default").unwrap().enqueue(job("good")).await.unwrap();
    let held = hold(&from).await;
    let account = from.move_to(&to).patience(Duration::from_secs(2)).run(|_| {}).await.unwrap();
    assert_eq!((account.met, account.running, account.busy()), (0, 1, 1));
    let moving = tokio::spawn({
        let (from, to) = (from.clone(), to.clone());
        async move { from.move_to(&to).run(|_| {}).await }
    });
    sleep(Duration::from_secs(5)).await;
    assert!(!moving.is_finished());
    held.complete(None).await.unwrap();
    let account = moving.await.unwrap().unwrap();
    assert_eq!((account.taken, account.running), (1, 0));
    assert_eq!(to.find(id).await.unwrap().unwrap().state, State::Succeeded);
    // Somebody says that it is enough.
    let stop = CancellationToken::new();
    from.queue("default").unwrap().enqueue(job("good")).await.unwrap();
    let _held = hold(&from).await;
    let stopping = stop.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        stopping.cancel();
    });
    let account = from.move_to(&to).until(stop).run(|_| {}).await.unwrap();
    assert_eq!(account.running, 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_stays_whose_key_is_held_there() {
    let (from, to) = (store(), store());
    let keyed = || job("good").unique(UniqueKey::new("k").unwrap(), UniqueScope::UntilFinished);
    let holder = to.queue("default").unwrap().enqueue(keyed()).await.unwrap();
    let here = from.queue("default").unwrap();
    let (id, other) = (here.enqueue(keyed()).await.unwrap(), here.enqueue(job("good")).await.unwrap());
    let account = from.move_to(&to).run(|_| {}).await.unwrap();
    assert_eq!((account.met, account.taken, account.held), (2, 1, 1));
    assert_eq!(account.holders, [(id, holder)]);
    assert!(account.adds_up());
    let stayed = all(&from).await;
    assert_eq!((stayed.len(), stayed[0].id, stayed[0].state), (1, id, State::Queued));
    assert!(to.find(other).await.unwrap().is_some());
    to.delete(holder).await.unwrap();
    assert_eq!(from.move_to(&to).run(|_| {}).await.unwrap().taken, 1);
    assert_eq!(to.find(id).await.unwrap().unwrap().state, State::Queued);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_off_may_also_be_brought_back() {
    for ends in [false, true] {
        let (from, to) = (Probe::quiet(), store());
        let (here, ran) = (from.undisturbed(), Ran::default());
        let id = here.queue("default").unwrap().enqueue(job("good")).await.unwrap();
        // Withdrawn here, admitted there, and not deleted here.
        let mut amends = 0;
        from.set(move |operation| {
            amends += usize::from(operation == Operation::Amend);
            if operation == Operation::Amend && amends > 1 { Fate::Hang } else { Fate::Pass }
        });
        let moving = from.store();
        assert!(timeout(Duration::from_secs(3), moving.move_to(&to).run(|_| {})).await.is_err());
        assert!(here.find(id).await.unwrap().unwrap().is_withdrawn());
        if ends {
            ran.work(&to, Duration::from_secs(1)).await;
        }
        let account = to.move_to(&here).run(|_| {}).await.unwrap();
        assert_eq!((account.met, account.there), (1, 1));
        assert_eq!(all(&to).await, []);
        ran.work(&here, Duration::from_secs(1)).await;
        assert_eq!(here.find(id).await.unwrap().unwrap().state, State::Succeeded);
        assert_eq!(ran.of(id), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn takes_only_what_matches() {
    let (from, to) = (store(), store());
    for (name, kind) in [("a", "good"), ("a", "bad"), ("b", "good")] {
        from.queue(name).unwrap().enqueue(job(kind)).await.unwrap();
    }
    let schedule = every(&from, MINUTE).await;
    for name in ["a", "b"] {
        from.schedules().put(name, schedule.clone().queue(queue(name))).await.unwrap();
        let request = SetQueue { queue: queue(name), settings: QueueSettings::default() };
        from.backend().set_queue(from.deadline(), request).await.unwrap();
    }
    let mut of_a = Filter::default();
    of_a.queues = Some(vec![queue("a")]);
    let mut bad = of_a.clone();
    bad.kinds = Some(vec![Kind::new("bad").unwrap()]);
    let account = from.move_to(&to).only(bad).run(|_| {}).await.unwrap();
    assert_eq!((account.taken, account.queues, account.schedules), (1, 0, 0));
    let account = from.move_to(&to).only(of_a).run(|_| {}).await.unwrap();
    assert_eq!((account.taken, account.queues, account.schedules), (1, 1, 1));
    assert_eq!(all(&from).await.len(), 1);
    assert!(to.schedules().get("b").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_copy_rests_until_a_move_brings_the_rest() {
    let (from, to) = (store(), store());
    let ids = filled(&from).await;
    from.schedules().put("s", every(&from, MINUTE).await).await.unwrap();
    let account = from.copy_to(&to).run(|_| {}).await.unwrap();
    assert_eq!((account.met, account.taken, account.schedules), (81, 81, 1));
    assert_eq!((all(&from).await.len(), all(&to).await.len()), (81, 81));
    assert!(to.schedules().get("s").await.unwrap().unwrap().schedule.paused);
    let waits = |job: &&JobRecord| job.state.is_waiting();
    let there = all(&to).await;
    assert!(there.iter().filter(waits).all(JobRecord::is_parked));
    // The same again changes nothing.
    let again = from.copy_to(&to).run(|_| {}).await.unwrap();
    assert_eq!((again.met, again.taken, again.there), (81, 0, 81));
    // One that ended is sent round again where it is, and one ends.
    let ended = there.iter().find(|job| job.state == State::Succeeded).unwrap().id;
    from.requeue(ended).await.unwrap();
    to.schedules().delete("s").await.unwrap();
    let account = from.move_to(&to).run(|_| {}).await.unwrap();
    assert_eq!((account.taken, account.there), (0, 81));
    assert_eq!(all(&from).await, []);
    let there = all(&to).await;
    assert_eq!(there.len(), 81);
    assert_eq!(there.iter().filter(|job| job.is_parked()).map(|job| job.id).collect::<Vec<_>>(), [ids[80]]);
    let again = there.iter().find(|job| job.id == ended).unwrap();
    assert_eq!((again.state, again.generation), (State::Queued, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flow_moves_when_it_has_ended() {
    let (from, to) = (store(), store());
    let flow = |n: u32| {
        let mut flow = Flow::new(format!("flow {n}")).unwrap();
        let first = flow.add(job("good")).unwrap();
        flow.after(first).add(job("good")).unwrap();
        flow
    };
    let ran = Ran::default();
    let goes_on = from.flows().enqueue(&flow(2)).await.unwrap();
    let held = hold(&from).await;
    let ended = from.flows().enqueue(&flow(1)).await.unwrap();
    ran.work(&from, Duration::from_secs(5)).await;
    assert_eq!(from.flows().get(ended).await.unwrap().unwrap().state, FlowState::Succeeded);

    let account = from.move_to(&to).patience(Duration::ZERO).run(|_| {}).await.unwrap();
    assert_eq!((account.taken, account.running, account.in_flows, account.flows), (2, 1, 1, 1));
    assert_eq!(from.flows().get(ended).await.unwrap(), None);
    let moved = to.flows().get(ended).await.unwrap().unwrap();
    assert_eq!((moved.state, moved.counts.succeeded), (FlowState::Succeeded, 2));
    assert_eq!(from.flows().get(goes_on).await.unwrap().unwrap().state, FlowState::Running);
    held.complete(None).await.unwrap();
    ran.work(&from, Duration::from_secs(5)).await;
    let account = from.move_to(&to).run(|_| {}).await.unwrap();
    assert_eq!((account.taken, account.flows), (2, 1));
    assert_eq!(to.flows().get(goes_on).await.unwrap().unwrap().state, FlowState::Succeeded);
    assert_eq!(all(&from).await, []);
}

#[tokio::test(start_paused = true)]
async fn flows_that_begin_meanwhile_end_where_they_began() {
    const OFTEN: Duration = Duration::from_millis(3);
    const SELDOM: Duration = Duration::from_secs(2);
    let began = tokio::time::Instant::now();
    let (from, to, ran) = (store(), store(), Ran::default());
    let workers = [ran.worker(&from), ran.worker(&to)];
    let moving = tokio::spawn({
        let (from, to) = (from.clone(), to.clone());
        async move {
            loop {
                assert!(from.move_to(&to).run(|_| {}).await.unwrap().adds_up());
                // Often while flows begin, and then as often as it takes.
                sleep(if began.elapsed() < Duration::from_secs(2) { OFTEN } else { SELDOM }).await;
            }
        }
    });
    let mut ids = Vec::new();
    for n in 0..60 {
        let mut flow = Flow::new(format!("flow {n}")).unwrap();
        let first = flow.add_all([job("good"), job("twice")]).unwrap();
        let last = flow.after(first).add(job("good")).unwrap();
        flow.after(last).add(job("good")).unwrap();
        ids.push(from.flows().enqueue(&flow).await.unwrap());
        sleep(Duration::from_millis(7)).await;
    }
    sleep(Duration::from_secs(90)).await;
    moving.abort();
    for id in ids {
        let flow = to.flows().get(id).await.unwrap().unwrap();
        assert_eq!((flow.state, flow.counts.succeeded), (FlowState::Succeeded, 4));
        assert_eq!(from.flows().get(id).await.unwrap(), None);
        for job in 0..4 {
            assert_eq!(ran.of(id.member(job)), 1);
            assert_eq!(to.find(id.member(job)).await.unwrap().unwrap().state, State::Succeeded);
        }
    }
    assert_eq!(all(&from).await, []);
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_job_is_nobodys_until_it_is_brought() {
    let (from, to) = (store(), store());
    let id = from.queue("default").unwrap().enqueue(job("good")).await.unwrap();
    from.amend(id, Action::Withdraw).await.unwrap();
    assert!(from.queue("default").unwrap().consumer().next().await.unwrap().is_none());
    let mut filter = Filter::default();
    filter.states = Some(vec![State::Queued]);
    let account = from.move_to(&to).only(filter).run(|_| {}).await.unwrap();
    assert_eq!((account.resumed, account.taken), (1, 1));
    let job = to.find(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.finished_at, job.due <= to.now().await.unwrap()), (State::Queued, None, true));
}
