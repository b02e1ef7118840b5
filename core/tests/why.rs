use std::time::Duration;

use leasehold_core::backend::{CheckIn, Claim, WorkerInfo};
use leasehold_core::client::Why;
use leasehold_core::flow::Flow;
use leasehold_core::policy::Rate;
use leasehold_core::{
    ErrorKind, JobId, Kind, LimitKey, NewJob, QueueName, State, Store, Tag, WorkerId, WorkerName,
};

use crate::store;

const LEASE: Duration = Duration::from_secs(30);

fn job() -> NewJob {
    NewJob::dynamic("work", &()).unwrap()
}

async fn add(store: &Store, job: NewJob) -> JobId {
    store.queue("default").unwrap().enqueue(job).await.unwrap()
}

/// What is told of a job, by the names of the reasons.
async fn told(store: &Store, job: JobId) -> Vec<String> {
    let why = store.why(job).await.unwrap();
    let name = |why: &Why| serde_json::to_value(why).unwrap()["why"].as_str().unwrap().to_owned();
    assert!(why.iter().all(|why| !why.to_string().is_empty()));
    why.iter().map(name).collect()
}

/// A worker that lives, and runs so many of the two jobs that it may.
async fn worker(store: &Store, queue: &str, kinds: &[&str], tags: &[&str], running: usize) {
    let mut info = WorkerInfo::new(WorkerName::new("worker").unwrap(), "here", 1);
    info.queues = vec![QueueName::new(queue).unwrap()];
    info.kinds = kinds.iter().map(|kind| Kind::new(kind).unwrap()).collect();
    info.tags = tags.iter().map(|tag| Tag::new(tag).unwrap()).collect();
    (info.concurrency, info.running) = (2, running);
    let request = CheckIn { worker: WorkerId::generate(), info, lost_after: LEASE, leaving: false };
    store.backend().check_in(store.deadline(), request).await.unwrap();
}

async fn claim(store: &Store) -> JobId {
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], 1, LEASE);
    store.backend().claim(store.deadline(), claim).await.unwrap().jobs[0].job.id
}

#[tokio::test(start_paused = true)]
async fn tells_what_becomes_of_one_job() {
    let store = store();
    let id = add(&store, job().delay(Duration::from_secs(60))).await;
    assert_eq!(told(&store, id).await, ["not_due", "no_worker_of_queue"]);
    worker(&store, "default", &[], &[], 0).await;
    assert_eq!(told(&store, id).await, ["not_due"]);
    tokio::time::advance(Duration::from_secs(60)).await;
    worker(&store, "default", &[], &[], 0).await;
    assert_eq!(told(&store, id).await, ["next"]);
    assert_eq!(claim(&store).await, id);
    assert_eq!(told(&store, id).await, ["running"]);
    tokio::time::advance(LEASE + Duration::from_secs(1)).await;
    let why = store.why(id).await.unwrap();
    assert!(matches!(why[..], [Why::LeaseOver { is_anybody_there: false, .. }]), "{why:?}");
    store.delete(id).await.unwrap();
    let missing = store.why(JobId::generate()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn tells_who_is_missing() {
    let store = store();
    let id = add(&store, job().tag(Tag::new("slow").unwrap())).await;
    assert_eq!(told(&store, id).await, ["no_worker_of_queue"]);
    worker(&store, "other", &[], &[], 0).await;
    assert!(store.why(id).await.unwrap()[0].to_string().contains("none of the 1 living workers"));
    worker(&store, "default", &["rest"], &[], 0).await;
    assert_eq!(told(&store, id).await, ["no_worker_of_kind"]);
    worker(&store, "default", &["work"], &["fast"], 0).await;
    assert_eq!(told(&store, id).await, ["no_worker_of_tags"]);
    worker(&store, "default", &["work"], &["slow"], 2).await;
    assert_eq!(told(&store, id).await, ["busy"]);
    worker(&store, "default", &[], &[], 1).await;
    assert_eq!(told(&store, id).await, ["next"]);
}

#[tokio::test(start_paused = true)]
async fn tells_what_is_in_its_way() {
    let store = store();
    worker(&store, "default", &[], &[], 0).await;
    let limited = || job().limit(LimitKey::new("key").unwrap(), 1);
    let (first, second) = (add(&store, limited()).await, add(&store, limited()).await);
    assert_eq!(told(&store, second).await, ["behind"]);
    assert_eq!(claim(&store).await, first);
    let why = store.why(second).await.unwrap();
    assert!(matches!(&why[..], [Why::Limit { holder, max: 1, .. }] if *holder == first), "{why:?}");
    for _ in 0..3 {
        add(&store, job().priority(5)).await;
    }
    let why = store.why(second).await.unwrap();
    assert!(matches!(why[1], Why::Behind { jobs: 3, higher: 3, more: false }), "{why:?}");
    let queue = store.queue("default").unwrap();
    queue.pause("ann", "the relay is down").await.unwrap();
    assert_eq!(told(&store, second).await, ["paused", "limit", "behind"]);
    let first = store.why(second).await.unwrap()[0].to_string();
    assert_eq!(first, "the queue default is paused by ann: the relay is down");
    queue.resume().await.unwrap();
    queue.set_rate(Some(Rate::new(10, Duration::from_secs(60)))).await.unwrap();
    assert_eq!(told(&store, second).await, ["limit", "rate", "behind"]);
}

#[tokio::test(start_paused = true)]
async fn tells_what_a_parked_job_waits_for() {
    let store = store();
    let parked = add(&store, job().parked()).await;
    assert_eq!(told(&store, parked).await, ["parked"]);
    let mut flow = Flow::new("import").unwrap();
    let first = flow.add(job()).unwrap();
    flow.after(first).add(job()).unwrap();
    store.flows().enqueue(&flow).await.unwrap();
    let (parent, child) = (flow.id().member(0), flow.id().member(1));
    let why = store.why(child).await.unwrap();
    assert_eq!(why, [Why::Flow { flow: flow.id(), parent: Some(parent), state: Some(State::Queued) }]);
    store.cancel(parked).await.unwrap();
    assert_eq!(told(&store, parked).await, ["ended"]);
}
