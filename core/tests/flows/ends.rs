use leasehold_core::backend::{Filter, PutRegister, Registers, Space};
use leasehold_core::flow::{Flow, FlowState};
use leasehold_core::{Deadline, ErrorKind, Keep, Payload, Reason, RegisterName, State};
use tokio::time::sleep;

use super::*;
use crate::store;

async fn registers(store: &Store, space: Space) -> usize {
    let page = store.backend().registers(Deadline::default(), Registers::all(space, 1_000)).await;
    page.unwrap().registers.len()
}

async fn all(store: &Store) -> usize {
    store.list(Filter::default(), None, 1_000).await.unwrap().jobs.len()
}

/// An arbitrary flow whose plan does not fit into its own register.
fn large(name: &str) -> Flow {
    let mut flow = Flow::new(name).unwrap();
    let mut steps: Vec<_> = flow.add_all(jobs(2)).unwrap().steps().collect();
    for n in 2..800_usize {
        let step = flow.after([steps[n / 3], steps[n / 2], steps[n - 1]]).add(job("ok")).unwrap();
        steps.push(step);
    }
    flow
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_flow_ends_with_all_its_jobs() {
    let store = store();
    let mut flow = Flow::new("cancelled").unwrap();
    let slow = flow.add_all([job("slow"), job("slow")]).unwrap();
    let waits = flow.add(job("ok").delay(HOUR * 100)).unwrap();
    flow.after(slow).after(waits).chain(jobs(3)).unwrap();
    let began = Began::default();
    let worker = working(&store, &began);
    store.flows().enqueue(&flow).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(store.flows().cancel(flow.id()).await.unwrap().state, FlowState::Cancelling);
    let ended = store.flows().wait(flow.id(), HOUR).await.unwrap();
    assert_eq!((ended.state, ended.counts.cancelled), (FlowState::Cancelled, 4));
    // Those that were told to end did so by themselves.
    assert_eq!(ended.counts.succeeded, 2);
    assert_eq!(store.flows().cancel(flow.id()).await.unwrap(), ended);
    worker.stop().await.unwrap();
    let other = Flow::new("unknown").unwrap();
    assert_eq!(store.flows().cancel(other.id()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_an_operator_cancels_or_deletes_count_as_not_succeeded() {
    let store = store();
    let mut flow = Flow::new("operated").unwrap();
    let roots = flow.add_all((0..4).map(|_| job("ok").delay(HOUR))).unwrap();
    for root in roots.steps() {
        flow.after(root).add(job("ok")).unwrap();
    }
    store.flows().enqueue(&flow).await.unwrap();
    store.cancel(flow.id().member(0)).await.unwrap();
    store.delete(flow.id().member(1)).await.unwrap();
    // One that waits for another is cancelled by hand, one is deleted.
    store.cancel(flow.id().member(6)).await.unwrap();
    store.delete(flow.id().member(7)).await.unwrap();
    let worker = working(&store, &Began::default());
    let ended = store.flows().wait(flow.id(), HOUR * 2).await.unwrap();
    assert_eq!((ended.state, ended.counts.succeeded, ended.counts.cancelled), (FlowState::Failed, 2, 6));
    worker.stop().await.unwrap();
    let of = |index| store.find(flow.id().member(index));
    for child in [4, 5] {
        let job = of(child).await.unwrap().unwrap();
        assert_eq!((job.state, job.reason), (State::Cancelled, Some(Reason::Dependency)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_ended_is_kept_as_long_as_the_flow_was_to_be() {
    let store = store();
    let flow = large("kept").keep(Keep::For(HOUR));
    let (ended, began) = run(&store, &flow).await;
    assert_eq!((ended.state, began.len()), (FlowState::Succeeded, 800));
    assert_eq!((registers(&store, Space::Flow).await, all(&store).await), (1, 800));
    assert!(registers(&store, Space::FlowPlan).await > 0);
    let worker = working(&store, &Began::default());
    sleep(HOUR - SECOND * 10).await;
    assert_eq!(all(&store).await, 800);
    store.requeue(flow.id().member(17)).await.unwrap();
    sleep(SECOND * 30).await;
    assert_eq!((registers(&store, Space::Flow).await, all(&store).await), (0, 0));
    assert_eq!(registers(&store, Space::FlowPlan).await, 0);
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ended_flow_is_deleted_by_hand_with_its_jobs() {
    let store = store();
    let flow = large("deleted").keep(Keep::Forever);
    store.flows().enqueue(&flow).await.unwrap();
    assert_eq!(store.flows().delete(flow.id()).await.unwrap_err().kind(), ErrorKind::Conflict);
    let (_, began) = run(&store, &flow).await;
    assert_eq!(began.len(), 800);
    store.flows().delete(flow.id()).await.unwrap();
    assert_eq!((registers(&store, Space::Flow).await, all(&store).await), (0, 0));
    assert_eq!(store.flows().delete(flow.id()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn flows_are_listed_and_shown_with_what_their_jobs_wait_for() {
    let store = store();
    let flows: Vec<Flow> = (0..5).map(|n| large(&format!("flow {n}"))).collect();
    for flow in &flows {
        store.flows().enqueue(flow).await.unwrap();
    }
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = store.flows().list(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        names.extend(page.into_iter().map(|flow| flow.name));
    }
    assert_eq!(names, ["flow 0", "flow 1", "flow 2", "flow 3", "flow 4"]);
    let page = store.flows().members(flows[2].id(), 600, 3).await.unwrap();
    let shown: Vec<_> = page.iter().map(|member| (member.index, member.parents.clone())).collect();
    assert_eq!(shown[0], (600, vec![200..201, 300..301, 599..600]));
    assert_eq!(
        page.iter().map(|member| member.id).collect::<Vec<_>>(),
        [600, 601, 602].map(|n| flows[2].id().member(n))
    );
    assert_eq!(store.flows().members(flows[2].id(), 799, 3).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_read_harms_no_other() {
    let store = store();
    let now = store.now().await.unwrap();
    for n in 0..150 {
        let body = if n % 2 == 0 { "{}" } else { r#"{"format":9}"# };
        let name = RegisterName::new(format!("00000000-bad {n}")).unwrap();
        let bad = PutRegister::new(Space::Flow, name, Payload::from(body.to_owned()), None);
        let bad = PutRegister { next: Some(now), ..bad };
        store.backend().put_register(Deadline::default(), bad).await.unwrap();
    }
    let mut flow = Flow::new("good").unwrap();
    flow.chain(jobs(3)).unwrap();
    let (ended, _) = run(&store, &flow).await;
    assert_eq!(ended.state, FlowState::Succeeded);
    assert_eq!(registers(&store, Space::Flow).await, 151);
    assert_eq!(store.flows().list(None, 1_000).await.unwrap().len(), 1);
}
