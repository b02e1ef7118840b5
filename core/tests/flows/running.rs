use futures::TryStreamExt;
use leasehold_core::backend::Filter;
use leasehold_core::flow::{Flow, FlowState, HEADER, Member, OnParentFailure};
use leasehold_core::{ErrorKind, Reason, State, Worker};
use tokio::time::Instant;

use super::*;
use crate::store;

#[tokio::test(start_paused = true)]
async fn a_diamond_runs_from_top_to_bottom() {
    let store = store();
    let mut flow = Flow::new("diamond").unwrap();
    let top = flow.add(job("ok")).unwrap();
    let sides = flow.after(top).add_all(jobs(2)).unwrap();
    flow.after(sides).add(job("ok")).unwrap();
    let begun = Instant::now();
    let (ended, began) = run(&store, &flow).await;
    assert_eq!((ended.state, ended.size, ended.counts.succeeded), (FlowState::Succeeded, 4, 4));
    let place = place(&began);
    assert!(began.len() == 4 && place[&0] == 0 && place[&3] == 3, "{began:?}");
    assert!(begun.elapsed() < SECOND, "it waited for somebody to look: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn none_runs_before_all_are_there_and_the_flow_is_there_once() {
    let store = store();
    let mut flow = Flow::new("twice").unwrap();
    flow.chain(jobs(3)).unwrap();
    for _ in 0..3 {
        assert_eq!(store.flows().enqueue(&flow).await.unwrap(), flow.id());
    }
    let all = store.list(Filter::default(), None, 100).await.unwrap().jobs;
    assert_eq!(all.len(), 3);
    assert_eq!(states(&store, flow.id()).await, [State::Queued, State::Scheduled, State::Scheduled]);
    assert!(all.iter().all(|job| job.options.headers[HEADER] == flow.id().to_string()));
    assert_eq!(Member::of(&members(&store, flow.id()).await[2]), Some(Member { flow: flow.id(), index: 2 }));
    let (ended, began) = run(&store, &flow).await;
    assert_eq!((ended.state, began), (FlowState::Succeeded, vec![0, 1, 2]));
    assert_eq!(store.flows().enqueue(&flow).await.unwrap(), flow.id());
    assert_eq!(states(&store, flow.id()).await, [State::Succeeded; 3]);
    let error = store.flows().enqueue(&Flow::new("empty").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_failure_cancels_what_waits_for_it_and_the_callback_runs() {
    let store = store();
    let mut flow = Flow::new("failing").unwrap();
    let bad = flow.add(job("fail")).unwrap();
    let good = flow.add(job("ok")).unwrap();
    let child = flow.after([bad, good]).add(job("ok")).unwrap();
    let grandchild = flow.after(child).add(job("ok")).unwrap();
    let anyway = flow.after(bad).on_parent_failure(OnParentFailure::Run).add(job("ok")).unwrap();
    let callback = flow.after_end([bad, good, child, grandchild, anyway]).add(job("ok")).unwrap();
    let (ended, began) = run(&store, &flow).await;
    assert_eq!(ended.state, FlowState::Failed);
    let (counts, place) = (ended.counts, place(&began));
    assert_eq!((counts.succeeded, counts.failed, counts.cancelled, counts.open), (3, 1, 2, 0));
    let jobs = members(&store, flow.id()).await;
    for cancelled in [child, grandchild] {
        let job = &jobs[cancelled.index() as usize];
        assert_eq!((job.state, job.reason), (State::Cancelled, Some(Reason::Dependency)));
    }
    assert_eq!(place[&callback.index()], 3, "{began:?}");
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_waiting_runs_once_its_parent_was_requeued_and_succeeded() {
    let store = store();
    let mut flow = Flow::new("waiting").unwrap().on_parent_failure(OnParentFailure::Wait);
    let bad = flow.add(job("fail")).unwrap();
    flow.after(bad).add(job("ok")).unwrap();
    let began = Began::default();
    let worker = working(&store, &began);
    store.flows().enqueue(&flow).await.unwrap();
    let waits = store.flows().wait(flow.id(), HOUR).await.unwrap();
    assert_eq!((waits.state, waits.counts.failed, waits.counts.open), (FlowState::Running, 1, 1));
    assert_eq!(states(&store, flow.id()).await, [State::Failed, State::Scheduled]);
    worker.stop().await.unwrap();
    store.requeue(flow.id().member(0)).await.unwrap();
    let good = Worker::builder(&store).handle("do", async |_: Attempt| {}).build().unwrap().start();
    let ended = store.flows().wait(flow.id(), HOUR).await.unwrap();
    assert_eq!((ended.state, ended.counts.succeeded), (FlowState::Succeeded, 2));
    good.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_callback_sees_how_all_before_it_ended() {
    let store = store();
    let mut flow = Flow::new("callback").unwrap();
    let parts = flow.add_all((0..1_200).map(|n| job(if n % 100 == 7 { "fail" } else { "ok" }))).unwrap();
    flow.after_end(parts).add(NewJob::dynamic("count", &()).unwrap()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let counting = seen.clone();
    let count = move |attempt: Attempt| {
        let seen = counting.clone();
        async move {
            let states = attempt.parents().map_ok(|job| job.state).try_collect::<Vec<_>>().await?;
            seen.lock().unwrap().push(states);
            Ok::<(), leasehold_core::Error>(())
        }
    };
    let act = async |attempt: Attempt| {
        let does: String = attempt.job().payload.parse()?;
        if does == "fail" { Err(BoxError::from("as it was told")) } else { Ok(()) }
    };
    let worker = Worker::builder(&store).handle("do", act).handle("count", count).build().unwrap().start();
    let id = store.flows().enqueue(&flow).await.unwrap();
    assert_eq!(store.flows().wait(id, HOUR).await.unwrap().state, FlowState::Failed);
    worker.stop().await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    let of = |state| seen[0].iter().filter(|seen| **seen == state).count();
    assert_eq!((of(State::Succeeded), of(State::Failed), seen[0].len()), (1_188, 12, 1_200));
}

#[tokio::test(start_paused = true)]
async fn delays_count_from_when_a_job_is_let_go() {
    let store = store();
    let mut flow = Flow::new("delays").unwrap();
    let first = flow.add(job("ok").delay(SECOND * 100)).unwrap();
    flow.after(first).add(job("ok").delay(SECOND * 50)).unwrap();
    let late = store.now().await.unwrap().plus(SECOND * 400);
    flow.after(first).add(job("ok").run_at(late)).unwrap();
    let (from, begun) = (store.now().await.unwrap(), Instant::now());
    let (ended, began) = run(&store, &flow).await;
    assert_eq!((ended.state, began), (FlowState::Succeeded, vec![0, 1, 2]));
    let started: Vec<u64> = members(&store, flow.id())
        .await
        .iter()
        .map(|job| job.started_at.unwrap().since(from).as_secs())
        .collect();
    assert_eq!(started, [100, 150, 400], "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn jobs_held_by_hand_lead_their_flow_on() {
    let store = store();
    let mut flow = Flow::new("by hand").unwrap();
    flow.chain(jobs(5)).unwrap();
    store.flows().enqueue(&flow).await.unwrap();
    let mut consumer = store.queue("default").unwrap().consumer();
    for index in 0..5 {
        let held = consumer.next().await.unwrap().unwrap();
        assert_eq!(held.job().id, flow.id().member(index));
        held.complete(None).await.unwrap();
    }
    assert_eq!(store.flows().get(flow.id()).await.unwrap().unwrap().state, FlowState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_when_idle_ends_after_its_flows() {
    let store = store();
    let mut flow = Flow::new("idle").unwrap();
    flow.chain(jobs(50)).unwrap();
    store.flows().enqueue(&flow).await.unwrap();
    let worker = Worker::builder(&store).handle("do", async |_: Attempt| {}).until_idle().build().unwrap();
    assert_eq!(worker.run().await.succeeded, 50);
    assert_eq!(store.flows().get(flow.id()).await.unwrap().unwrap().state, FlowState::Succeeded);
}
