//! What becomes of a job between a claim's look at it and what the claim does to it.
//!
//! Failpoints are of a whole process: this binary has but one test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::backend::{Action, Amend, Enqueue, EnqueueAnswer, Select};
use leasehold_core::{
    Backend, Deadline, Due, JobId, LeasedJob, NewJob, Payload, State, UniqueKey, UniqueScope, failpoints,
};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;
use leasehold_test_servers::verbs::{SUCCEED, add, claim, find, fresh, job, settle};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

const SOON: Duration = Duration::from_secs(30);

type Act = Box<dyn FnOnce() + Send>;

/// What happens once, at the next point that is reached.
#[derive(Clone, Default)]
struct Next(Arc<Mutex<Option<Act>>>);

impl Next {
    fn at(point: &str) -> Self {
        let next = Self::default();
        let here = next.clone();
        let act = move || {
            let act = here.0.lock().expect("an act").take();
            if let Some(act) = act {
                act();
            }
        };
        failpoints::arm(point, act).expect("armed");
        next
    }

    fn is(&self, act: impl Future<Output = ()> + Send + 'static) {
        let runtime = Handle::current();
        let act = move || block_in_place(|| runtime.block_on(act));
        *self.0.lock().expect("an act") = Some(Box::new(act));
    }

    fn has_happened(&self) -> bool {
        self.0.lock().expect("an act").is_none()
    }
}

fn soon() -> Deadline {
    Deadline::after(SOON)
}

fn ending() -> NewJob {
    job().limit_or_end("limit".parse().expect("a key"), 1)
}

fn newcomer(payload: &str) -> NewJob {
    let key = "key".parse::<UniqueKey>().expect("a key");
    let mut job = ending().replace(key, UniqueScope::UntilClaimed);
    job.payload = Payload::json(&payload).expect("a payload");
    job
}

/// Claims what there is, on a thread that may be held up.
async fn claimed(store: &Mongo) -> Vec<LeasedJob> {
    let store = store.clone();
    tokio::spawn(async move { claim(&store, 1).await.jobs }).await.expect("a claim")
}

async fn amended(store: &Mongo, id: JobId, action: Action) {
    let amend = Amend { select: Select::Ids(vec![id]), action, preview: false };
    store.amend(soon(), amend).await.expect("amended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_changed_after_a_claim_looked_at_it_does_not_end_for_want_of_room() {
    let server = Server::own(1).expect("a server");
    let store = Mongo::with(Config::new(server.url()).database(fresh())).await.expect("a store");
    store.setup(soon()).await.expect("set up");
    let looked = Next::at("claim::looked");

    // Replaced, while there is room: the newest payload is what runs.
    let id = add(&store, vec![newcomer("first")]).await[0];
    let (at, second) = (store.clone(), newcomer("second"));
    let newest = second.payload.clone();
    looked.is(async move {
        let told = at.enqueue(soon(), Enqueue { jobs: vec![second] }).await.expect("answered");
        assert!(matches!(told[0].answer, EnqueueAnswer::Replaced), "{told:?}");
    });
    let given = claimed(&store).await;
    assert!(looked.has_happened());
    let given: Vec<_> = given.into_iter().filter(|lease| lease.job.id == id).collect();
    assert_eq!(given.len(), 1, "the job is {:?}", find(&store, id).await);
    assert_eq!(given[0].job.payload, newest);

    // Put off or moved, while there is none: it is not judged before it would be given.
    let elsewhere = "elsewhere".parse().expect("a name");
    for action in [Action::Postpone { due: Due::In(SOON) }, Action::Move { queue: elsewhere }] {
        let id = add(&store, vec![ending()]).await[0];
        let (at, changes) = (store.clone(), action.clone());
        looked.is(async move { amended(&at, id, changes).await });
        assert!(claimed(&store).await.is_empty());
        assert!(looked.has_happened());
        let job = find(&store, id).await;
        assert!(matches!(job.state, State::Queued | State::Scheduled), "after {action:?} it is {job:?}");
        amended(&store, id, Action::Cancel).await;
    }

    // One that nothing happened to ends.
    let id = add(&store, vec![ending()]).await[0];
    assert!(claimed(&store).await.is_empty());
    assert_eq!(find(&store, id).await.state, State::Cancelled);
    settle(&store, &given[0], &SUCCEED).await;
}
