use std::sync::atomic::{AtomicUsize, Ordering};

use leasehold_core::backend::{Claim, Filter, Registers, Settle, Settlement, Space, Verdict};
use leasehold_core::flow::{FlowState, OnParentFailure};
use leasehold_core::layer::Operation;
use leasehold_core::testing::{Chaos, Faults};
use leasehold_core::{Deadline, ErrorKind, Limits, QueueName, Reason, WorkerId};
use leasehold_memory::Memory;
use tokio::time::{sleep, timeout};

use super::*;
use crate::probe::{Fate, Probe};

/// Claims and settles what is due, as somebody does who tells nobody of it; tells how many that were.
async fn work(store: &Store) -> usize {
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], 7, SECOND * 30);
    let claimed = store.backend().claim(Deadline::default(), claim).await.unwrap();
    let settlements: Vec<Settlement> = claimed
        .jobs
        .iter()
        .map(|leased| {
            let fails = leased.job.payload.parse::<String>().unwrap() == "fail";
            let verdict = if fails {
                Verdict::Fail { reason: Reason::Error }
            } else {
                Verdict::Succeed { result: None }
            };
            Settlement { job: leased.job.id, token: leased.token, verdict, failure: None }
        })
        .collect();
    let count = settlements.len();
    store.backend().settle(Deadline::default(), Settle { settlements }).await.unwrap();
    count
}

/// A flow by chance, and how each of its jobs is to end.
fn random(dice: &mut fastrand::Rng, size: usize) -> (Flow, Vec<State>) {
    let mut flow = Flow::new("random").unwrap();
    let (mut steps, mut ends): (Vec<leasehold_core::flow::Step>, Vec<State>) = (Vec::new(), Vec::new());
    for _ in 0..size {
        let does = if dice.u8(0..10) == 0 { "fail" } else { "ok" };
        let mut some = |most: usize| -> Vec<_> {
            if steps.is_empty() {
                Vec::new()
            } else {
                (0..dice.usize(0..=most)).map(|_| dice.usize(0..steps.len())).collect()
            }
        };
        let (after, after_end) = (some(2), some(1));
        let runs = dice.u8(0..8) == 0;
        let policy = if runs { OnParentFailure::Run } else { OnParentFailure::Cancel };
        let of = |parents: &[usize]| parents.iter().map(|parent| steps[*parent]).collect::<Vec<_>>();
        let step = flow
            .after(of(&after))
            .after_end(of(&after_end))
            .on_parent_failure(policy)
            .add(job(does))
            .unwrap();
        let well = runs || after.iter().all(|parent| ends[*parent] == State::Succeeded);
        ends.push(match (well, does) {
            (false, _) => State::Cancelled,
            (true, "fail") => State::Failed,
            (true, _) => State::Succeeded,
        });
        steps.push(step);
    }
    // A callback when all have ended.
    flow.after_end(steps).add(job("ok")).unwrap();
    ends.push(State::Succeeded);
    (flow, ends)
}

#[tokio::test(start_paused = true)]
async fn a_flow_goes_on_though_nobody_hears_of_an_end() {
    let store = crate::store();
    let mut dice = fastrand::Rng::with_seed(3);
    let (flow, ends) = random(&mut dice, 60);
    store.flows().enqueue(&flow).await.unwrap();
    let flows = store.flows();
    let hands = async {
        loop {
            sleep(SECOND).await;
            work(&store).await;
        }
    };
    tokio::select! {
        () = flows.drive() => {}
        () = hands => {}
        ended = flows.wait(flow.id(), HOUR) => assert!(ended.unwrap().state.is_terminal()),
    }
    assert_eq!(states(&store, flow.id()).await, ends);
}

#[tokio::test(start_paused = true)]
async fn drivers_that_are_cut_off_anywhere_run_each_job_if_and_only_if_it_may() {
    for seed in 0..6 {
        let memory = Memory::new();
        let (store, mut dice) = (Store::new(memory.clone()), fastrand::Rng::with_seed(seed));
        let (flow, ends) = random(&mut dice, 120);
        let faults = Faults {
            request_lost: 0.1,
            reply_lost: 0.1,
            repeated: 0.1,
            delayed: 0.2,
            hung: 0.05,
            ..Faults::default()
        };
        let bad = |seed| {
            let chaos = Chaos::new(Arc::new(memory.clone()), faults, seed);
            Store::with_limits(Arc::new(chaos), Limits::default())
        };
        // Whoever enqueues it is cut off again and again, too.
        let producer = bad(1_000 + seed);
        for _ in 0..1_000 {
            let span = Duration::from_millis(dice.u64(1..4_000));
            if let Ok(Ok(_)) = timeout(span, producer.flows().enqueue(&flow)).await {
                break;
            }
        }
        assert_eq!(store.flows().get(flow.id()).await.unwrap().unwrap().state, FlowState::Running);
        let mut lives = |number: u64| {
            let store = bad(seed * 100 + number);
            let spans: Vec<u64> = (0..2_000).map(|_| dice.u64(1..12_000)).collect();
            async move {
                for span in spans {
                    let _ = timeout(Duration::from_millis(span), store.flows().drive()).await;
                }
            }
        };
        let many = futures::future::join_all((0..4).map(&mut lives).collect::<Vec<_>>());
        let hands = async {
            loop {
                sleep(Duration::from_millis(500)).await;
                work(&store).await;
            }
        };
        let flows = store.flows();
        tokio::select! {
            _ = many => panic!("the flow has not ended, with the seed {seed}"),
            () = hands => {}
            ended = flows.wait(flow.id(), HOUR * 24) => assert!(ended.unwrap().state.is_terminal()),
        }
        assert_eq!(states(&store, flow.id()).await, ends, "the seed is {seed}");
        let jobs = members(&store, flow.id()).await;
        assert!(jobs.iter().all(|job| job.generation == 0 && job.attempt <= 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_is_cut_off_anywhere_leaves_all_of_a_flow_or_nothing() {
    let mut flow = Flow::new("cut off").unwrap();
    let mut steps: Vec<_> = flow.add_all(jobs(2)).unwrap().steps().collect();
    for n in 2..1_500_usize {
        let step = flow.after([steps[n / 3], steps[n - 1]]).add(job("ok")).unwrap();
        steps.push(step);
    }
    let mut outcomes = [0, 0];
    for (at, arrives) in (0..40).flat_map(|at| [(at, false), (at, true)]) {
        let probe = Probe::quiet();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        probe.set(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            call if call < at => Fate::Pass,
            call if call == at && arrives => Fate::Mute,
            _ => Fate::Hang,
        });
        let enqueued = timeout(SECOND, probe.store().flows().enqueue(&flow)).await;
        if calls.load(Ordering::SeqCst) <= at {
            assert!(enqueued.is_ok() && at > 6, "there are {at} calls");
            break;
        }
        probe.set(|_| Fate::Pass);
        let store = probe.undisturbed();
        if at % 2 == 0 {
            // It comes back and goes on, in time or not.
            assert_eq!(store.flows().enqueue(&flow).await.unwrap(), flow.id());
        }
        let late = timeout(HOUR, store.flows().drive()).await;
        assert!(late.is_err());
        let there = store.list(Filter::default(), None, 1_000).await.unwrap();
        match store.flows().get(flow.id()).await.unwrap() {
            Some(there) => {
                outcomes[0] += 1;
                assert_eq!(there.state, FlowState::Running, "cut off at call {at}");
                assert_eq!(
                    states(&store, flow.id()).await[..3],
                    [State::Queued, State::Queued, State::Scheduled]
                );
                assert_eq!(store.counts().await.unwrap()[0].total(), 1_500);
            }
            None => {
                outcomes[1] += 1;
                assert!(at % 2 == 1 && there.jobs.is_empty(), "cut off at call {at}");
                let parts =
                    store.backend().registers(Deadline::default(), Registers::all(Space::FlowPlan, 9)).await;
                assert_eq!(parts.unwrap().registers.len(), 0);
            }
        }
    }
    assert!(outcomes[0] > 5 && outcomes[1] > 2, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_wakes_up_too_late_leaves_nothing() {
    let mut flow = Flow::new("late").unwrap();
    flow.chain(jobs(2_500)).unwrap();
    let probe = Probe::quiet();
    let sends = Arc::new(AtomicUsize::new(0));
    let counted = sends.clone();
    // The second batch takes longer than anybody waits.
    probe.set(move |operation| match operation {
        Operation::Enqueue if counted.fetch_add(1, Ordering::SeqCst) == 1 => Fate::Late(HOUR / 4),
        _ => Fate::Pass,
    });
    let store = Store::with_limits(Arc::new(probe.clone()), Limits::default()).patience(HOUR);
    let other = probe.undisturbed();
    let (flows, producer) = (other.flows(), store.flows());
    let enqueued = tokio::select! {
        enqueued = producer.enqueue(&flow) => enqueued,
        () = flows.drive() => unreachable!(),
    };
    assert_eq!(enqueued.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(sends.load(Ordering::SeqCst), 2);
    assert_eq!(other.list(Filter::default(), None, 10).await.unwrap().jobs.len(), 0);
    assert_eq!(other.flows().get(flow.id()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn fan_in_costs_no_more_than_one_look_for_each_end() {
    const PARENTS: usize = 3_000;
    let mut flow = Flow::new("fan-in").unwrap();
    let root = flow.add(job("ok")).unwrap();
    let parents = flow.after(root).add_all(jobs(PARENTS)).unwrap();
    let last = flow.after(parents).add(job("ok")).unwrap();
    flow.after_end([parents, last.into()]).add(job("ok")).unwrap();
    let probe = Probe::quiet();
    let calls: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let counted = calls.clone();
    probe.set(move |operation| {
        *counted.lock().unwrap().entry(operation.name().to_owned()).or_default() += 1;
        Fate::Pass
    });
    // As several processes: none knows what another one settled.
    let workers: Vec<_> = (0..3).map(|_| working(&probe.store(), &Began::default())).collect();
    let store = probe.undisturbed();
    store.flows().enqueue(&flow).await.unwrap();
    let ended = store.flows().wait(flow.id(), HOUR).await.unwrap();
    assert_eq!((ended.state, ended.counts.succeeded as usize), (FlowState::Succeeded, PARENTS + 3));
    for worker in workers {
        worker.stop().await.unwrap();
    }
    let calls = calls.lock().unwrap();
    let (finds, settles) = (calls["find"], calls["settle"]);
    assert!(finds <= 2 * settles + 3 * PARENTS / 100, "{calls:?}");
    assert!(calls["amend"] < 3 * 10, "{calls:?}");
}
