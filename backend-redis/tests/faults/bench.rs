//! The verbs in which the tests are written.

use leasehold_core::backend::{Action, Amend, AmendAnswer, Filter, List, Order, Select};
use leasehold_core::{Backend, Deadline, JobId, JobRecord, State};
use leasehold_redis::{Config, Redis};
pub(crate) use leasehold_test_servers::verbs::{
    LEASE, SUCCEED, add, again, asking, claim, counts, find, job, settle, settling, until,
};

pub(crate) fn soon() -> Deadline {
    Deadline::default()
}

/// A store on a server, ready for use.
pub(crate) async fn set_up(config: Config) -> Redis {
    let store = Redis::with(config).await.expect("a store");
    store.setup(soon()).await.expect("a store that is set up");
    store
}

pub(crate) async fn delete(store: &dyn Backend, job: JobId) -> AmendAnswer {
    let request = Amend { select: Select::Ids(vec![job]), action: Action::Delete, preview: false };
    store.amend(soon(), request).await.expect("an answer").jobs[0].1
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
