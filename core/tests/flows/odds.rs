use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use leasehold_core::backend::{Action, Amend, Filter, Select};
use leasehold_core::flow::{Flow, FlowState, OnParentFailure};
use leasehold_core::layer::Operation;
use leasehold_core::{Deadline, Due, ErrorKind, Keep, Limits, State};
use leasehold_memory::Memory;
use tokio::time::{sleep, timeout};

use super::*;
use crate::probe::{Fate, Probe};
use crate::store;

#[tokio::test(start_paused = true)]
async fn flows_hold_where_little_is_taken_at_once() {
    let mut limits = Limits::default();
    (limits.batch, limits.page, limits.payload_bytes) = (10, 10, 2_048);
    let store = Store::with_limits(Arc::new(Memory::new()), limits);
    for links in 0..150 {
        let mut flow = Flow::new("small").unwrap();
        let parts = flow.add_all(jobs(links.max(25))).unwrap();
        let steps: Vec<_> = parts.steps().step_by(2).take(links / 2).collect();
        flow.after(steps).add(job("ok")).unwrap();
        flow.after_end(parts).add(job("look")).unwrap();
        let enqueued = store.flows().enqueue(&flow).await;
        assert_eq!(enqueued.unwrap(), flow.id(), "with a plan of {links} links");
        let parents = attempt_parents(&store, &flow).await;
        assert_eq!(parents, links.max(25));
        let members = store.flows().members(flow.id(), 0, 20).await.unwrap();
        assert_eq!(members.len(), 20);
    }
}

/// How many parents of the flow's last job are found.
async fn attempt_parents(store: &Store, flow: &Flow) -> usize {
    let member = leasehold_core::flow::Member { flow: flow.id(), index: flow.len() as u32 - 1 };
    store.flows().parents(member).try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_flow_ends_after_a_job_that_was_sent_round_again() {
    let store = store();
    let mut flow = Flow::new("again").unwrap().on_parent_failure(OnParentFailure::Wait);
    let bad = flow.add(job("fail")).unwrap();
    flow.after(bad).add(job("ok")).unwrap();
    let worker = working(&store, &Began::default());
    store.flows().enqueue(&flow).await.unwrap();
    store.flows().wait(flow.id(), SECOND * 90).await.unwrap();
    worker.stop().await.unwrap();
    assert_eq!(states(&store, flow.id()).await, [State::Failed, State::Scheduled]);
    store.requeue(flow.id().member(0)).await.unwrap();
    let cancelled = store.flows().cancel(flow.id()).await.unwrap();
    assert_eq!(states(&store, flow.id()).await, [State::Cancelled; 2]);
    assert_eq!((cancelled.state, cancelled.counts.cancelled), (FlowState::Cancelled, 2));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_of_what_waits_for_a_job_that_somebody_freed() {
    let store = store();
    let mut flow = Flow::new("freed").unwrap();
    flow.add(job("fail")).unwrap();
    flow.after(flow.group(0..1).unwrap()).chain(jobs(4)).unwrap();
    store.flows().enqueue(&flow).await.unwrap();
    // The third of five.
    store.unpark(flow.id().member(2)).await.unwrap();
    let mut consumer = store.queue("default").unwrap().consumer();
    let (first, third) = (consumer.next().await.unwrap().unwrap(), consumer.next().await.unwrap().unwrap());
    first.end(leasehold_core::policy::Outcome::Cancelled).await.unwrap();
    third.complete(None).await.unwrap();
    let worker = working(&store, &Began::default());
    let ended = store.flows().wait(flow.id(), HOUR).await.unwrap();
    worker.stop().await.unwrap();
    let states = states(&store, flow.id()).await;
    use State::{Cancelled, Succeeded};
    assert_eq!(states, [Cancelled, Cancelled, Succeeded, Succeeded, Succeeded]);
    assert_eq!(ended.state, FlowState::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_flow_with_a_job_that_was_sent_round_again_is_not_deleted() {
    let store = store();
    let mut flow = Flow::new("again").unwrap().keep(Keep::Forever);
    flow.chain(jobs(3)).unwrap();
    run(&store, &flow).await;
    store.requeue(flow.id().member(1)).await.unwrap();
    assert_eq!(store.flows().delete(flow.id()).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Nobody asked for its end any more.
    let flows = store.flows();
    assert!(timeout(HOUR, flows.drive()).await.is_err());
    store.cancel(flow.id().member(1)).await.unwrap();
    assert!(timeout(HOUR, flows.drive()).await.is_err());
    assert_eq!(states(&store, flow.id()).await.len(), 3);
    store.flows().delete(flow.id()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_runs_while_its_flow_is_removed_is_not_left_for_ever() {
    let probe = Probe::quiet();
    let store = probe.undisturbed();
    let mut flow = Flow::new("again").unwrap().keep(Keep::For(SECOND * 100));
    flow.chain(jobs(3)).unwrap();
    run(&store, &flow).await;
    sleep(SECOND * 100).await;
    // All have ended when it is looked whether they have, and one runs when they are to be deleted.
    probe.set(|operation| if operation == Operation::Amend { Fate::Late(SECOND) } else { Fate::Pass });
    let (driver, mut consumer) = (probe.store().flows(), store.queue("default").unwrap().consumer());
    let requeue = async {
        sleep(SECOND / 2).await;
        store.requeue(flow.id().member(1)).await.unwrap();
        consumer.next().await.unwrap().unwrap()
    };
    let (driven, held) = tokio::join!(driver.drive_due(), requeue);
    driven.unwrap();
    held.complete(None).await.unwrap();
    assert!(timeout(HOUR, store.flows().drive()).await.is_err());
    assert_eq!(store.list(Filter::default(), None, 10).await.unwrap().jobs.len(), 0);
    assert_eq!(store.flows().get(flow.id()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_let_go_and_is_parked_again_does_not_hold_up_its_flow() {
    let store = store();
    let mut flow = Flow::new("parked").unwrap();
    flow.chain(jobs(3)).unwrap();
    store.flows().enqueue(&flow).await.unwrap();
    // By now this process knows that the first one was let go.
    store.flows().drive_due().await.unwrap();
    sleep(SECOND * 10).await;
    store.flows().drive_due().await.unwrap();
    let request = Amend {
        select: Select::Ids(vec![flow.id().member(0)]),
        action: Action::Postpone { due: Due::PARKED },
        preview: false,
    };
    store.backend().amend(Deadline::default(), request).await.unwrap();
    let worker = working(&store, &Began::default());
    assert_eq!(store.flows().wait(flow.id(), HOUR).await.unwrap().state, FlowState::Succeeded);
    worker.stop().await.unwrap();
}

/// In how many calls somebody reads all jobs of a flow.
async fn looks(flow: &Flow) -> usize {
    let (probe, finds) = (Probe::quiet(), Arc::new(AtomicUsize::new(0)));
    probe.undisturbed().flows().enqueue(flow).await.unwrap();
    sleep(SECOND * 10).await;
    let counted = finds.clone();
    probe.set(move |operation| {
        counted.fetch_add(usize::from(operation == Operation::Find), Ordering::SeqCst);
        Fate::Pass
    });
    probe.store().flows().drive_due().await.unwrap();
    finds.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn few_large_jobs_are_read_at_once_and_many_small_ones() {
    let (mut large, mut small) = (Flow::new("large").unwrap(), Flow::new("small").unwrap());
    let payload = "x".repeat(256 << 10);
    large.add_all(vec![NewJob::dynamic("do", &payload).unwrap(); 224]).unwrap();
    small.add_all(jobs(1_200)).unwrap();
    // 64 before it is known how large they are, and then 8 MiB each time.
    assert_eq!((looks(&large).await, looks(&small).await), (1 + 160_usize.div_ceil(31), 4));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_children_wait_for_one_parent() {
    const CHILDREN: u32 = 100_000;
    for (succeeds, state) in [(true, State::Queued), (false, State::Cancelled)] {
        let store = store();
        let mut flow = Flow::new("wide").unwrap();
        let parent = flow.add(job("ok")).unwrap();
        flow.after(parent).add_all(jobs(CHILDREN as usize)).unwrap();
        let id = store.flows().enqueue(&flow).await.unwrap();
        let held = store.queue("default").unwrap().consumer().next().await.unwrap().unwrap();
        assert_eq!(held.job().id, id.member(0));
        let before = store.counts().await.unwrap().remove(0);
        assert_eq!(before.of(State::Scheduled), u64::from(CHILDREN));
        if succeeds {
            held.complete(None).await.unwrap();
        } else {
            held.fail("no").await.unwrap();
        }
        let after = store.counts().await.unwrap().remove(0);
        assert_eq!(after.of(state), u64::from(CHILDREN), "{after:?}");
        let record = store.flows().get(id).await.unwrap().unwrap();
        assert_eq!(record.state.is_terminal(), !succeeds);
        if !succeeds {
            assert_eq!((record.counts.failed, record.counts.cancelled), (1, CHILDREN));
        }
    }
}
