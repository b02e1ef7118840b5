//! The verbs in which the tests are written.

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Answer, Counts, Enqueue, Filter, Find, List, Order, QueueCounts, Select,
    Settle, Settlement,
};
use leasehold_core::{Backend, Deadline, JobId, JobRecord, LeasedJob, NewJob, QueueName, State};
use leasehold_redis::{Config, Redis};
pub(crate) use leasehold_test_servers::verbs::{LEASE, SUCCEED, again, asking, job, until};

pub(crate) fn soon() -> Deadline {
    Deadline::default()
}

/// A store on a server, ready for use.
pub(crate) async fn set_up(config: Config) -> Redis {
    let store = Redis::with(config).await.expect("a store");
    store.setup(soon()).await.expect("a store that is set up");
    store
}

pub(crate) async fn add(store: &dyn Backend, jobs: Vec<NewJob>) -> Vec<JobId> {
    let answers = store.enqueue(soon(), Enqueue { jobs }).await.expect("taken in");
    answers.into_iter().map(|answer| answer.job).collect()
}

pub(crate) async fn claim(store: &dyn Backend, limit: usize) -> Vec<LeasedJob> {
    store.claim(soon(), asking(limit)).await.expect("a claim").jobs
}

pub(crate) fn settling(lease: &LeasedJob) -> Settle {
    let (job, token) = (lease.job.id, lease.token);
    Settle { settlements: vec![Settlement { job, token, verdict: SUCCEED, failure: None }] }
}

pub(crate) async fn settle(store: &dyn Backend, lease: &LeasedJob) -> Answer {
    store.settle(soon(), settling(lease)).await.expect("an answer")[0]
}

pub(crate) async fn delete(store: &dyn Backend, job: JobId) -> AmendAnswer {
    let request = Amend { select: Select::Ids(vec![job]), action: Action::Delete, preview: false };
    store.amend(soon(), request).await.expect("an answer").jobs[0].1
}

pub(crate) async fn find(store: &dyn Backend, id: JobId) -> Option<JobRecord> {
    let found = store.find(soon(), Find { ids: vec![id] }).await.expect("an answer");
    found.into_iter().next().flatten()
}

pub(crate) async fn counts(store: &dyn Backend) -> QueueCounts {
    let counts = again(async || store.counts(soon(), Counts::default()).await).await;
    counts.into_iter().next().unwrap_or_else(|| QueueCounts::empty(QueueName::default()))
}

/// Looks at all jobs, and holds them against the counts; answers how many there are.
pub(crate) async fn must_add_up(store: &dyn Backend) -> usize {
    let (mut jobs, mut after): (Vec<JobRecord>, _) = (Vec::new(), None);
    loop {
        let list = List { filter: Filter::default(), order: Order::OldestFirst, after, limit: 500 };
        let page = store.list(soon(), list).await.expect("a page");
        assert_eq!(page.unreadable, [], "records that cannot be read");
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let counts = counts(store).await;
    for state in State::ALL {
        let of_state = jobs.iter().filter(|job| job.state == state).count() as u64;
        assert_eq!(counts.of(state), of_state, "{state} of {counts:?}");
    }
    assert_eq!(counts.total() + counts.deleted, counts.enqueued, "{counts:?}");
    jobs.len()
}
