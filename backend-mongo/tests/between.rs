//! What happens to a job between a call's look at it and what the call does to it.
//!
//! Failpoints are of a whole process: this binary has but one test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::backend::{Action, Amend, AmendAnswer, Enqueue, EnqueueAnswer, Select};
use leasehold_core::{
    Backend, Deadline, Due, JobId, LeasedJob, NewJob, Payload, State, UniqueScope, failpoints,
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
    replacing(ending(), payload, UniqueScope::UntilClaimed)
}

fn keyed(payload: &str) -> NewJob {
    replacing(job(), payload, UniqueScope::UntilFinished)
}

fn replacing(job: NewJob, payload: &str, scope: UniqueScope) -> NewJob {
    let mut job = job.replace("key".parse().expect("a key"), scope);
    job.payload = Payload::json(&payload).expect("a payload");
    job
}

async fn must_replace(store: &Mongo, job: NewJob) {
    let told = store.enqueue(soon(), Enqueue { jobs: vec![job] }).await.expect("an answer");
    assert!(matches!(told[0].answer, EnqueueAnswer::Replaced), "{told:?}");
}

/// Claims what there is, on a thread that may be held up.
async fn claimed(store: &Mongo) -> Vec<LeasedJob> {
    let store = store.clone();
    tokio::spawn(async move { claim(&store, 1).await.jobs }).await.expect("a claim")
}

async fn amended(store: &Mongo, id: JobId, action: Action) -> AmendAnswer {
    let amend = Amend { select: Select::Ids(vec![id]), action, preview: false };
    store.amend(soon(), amend).await.expect("amended").jobs[0].1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_job_after_a_look_at_it_counts() {
    let server = Server::own(1).expect("a server");
    let store = Mongo::with(Config::new(server.url()).database(fresh())).await.expect("a store");
    store.setup(soon()).await.expect("set up");
    let looked = Next::at("claim::looked");
    let running = is_given_as_it_was_replaced(&store, &looked).await;
    does_not_end_before_it_would_be_given(&store, &looked).await;
    settle(&store, &running, &SUCCEED).await;
    is_told_what_its_copy_did(&store).await;
    takes_no_late_word_on_a_parked_job(&store).await;
}

/// A job that is replaced while there is room does not end for want of room: its newest payload runs.
async fn is_given_as_it_was_replaced(store: &Mongo, looked: &Next) -> LeasedJob {
    let id = add(store, vec![newcomer("first")]).await[0];
    let (at, second) = (store.clone(), newcomer("second"));
    let newest = second.payload.clone();
    looked.is(async move { must_replace(&at, second).await });
    let given = claimed(store).await.pop();
    assert!(looked.has_happened());
    let Some(given) = given else { panic!("the job is {:?}", find(store, id).await) };
    assert_eq!((given.job.id, &given.job.payload), (id, &newest));
    given
}

/// A job that is put off or moved while there is no room does not end before a claim would be given it.
async fn does_not_end_before_it_would_be_given(store: &Mongo, looked: &Next) {
    let elsewhere = "elsewhere".parse().expect("a name");
    for action in [Action::Postpone { due: Due::In(SOON) }, Action::Move { queue: elsewhere }] {
        let id = add(store, vec![ending()]).await[0];
        let (at, changes) = (store.clone(), action.clone());
        looked.is(async move { assert_eq!(amended(&at, id, changes).await, AmendAnswer::Applied) });
        assert!(claimed(store).await.is_empty());
        assert!(looked.has_happened());
        let job = find(store, id).await;
        assert!(matches!(job.state, State::Queued | State::Scheduled), "after {action:?} it is {job:?}");
        amended(store, id, Action::Cancel).await;
    }
    let id = add(store, vec![ending()]).await[0];
    assert!(claimed(store).await.is_empty());
    assert_eq!(find(store, id).await.state, State::Cancelled);
}

/// A job that was given a due time since it was found parked is neither ended nor given another one.
async fn takes_no_late_word_on_a_parked_job(store: &Mongo) {
    let sending = Next::at("write::before_send");
    let refused = AmendAnswer::Refused(State::Scheduled);
    for (late, told) in
        [(Action::CancelParked, refused), (Action::Unpark { due: Due::Now }, AmendAnswer::AlreadyApplied)]
    {
        let id = add(store, vec![job().parked()]).await[0];
        let (at, far) = (store.clone(), store.clone());
        let first = Action::Unpark { due: Due::In(SOON) };
        sending.is(async move { assert_eq!(amended(&at, id, first).await, AmendAnswer::Applied) });
        let answer = tokio::spawn(async move { amended(&far, id, late).await }).await.expect("an answer");
        assert!(sending.has_happened());
        assert_eq!((answer, find(store, id).await.state), (told, State::Scheduled));
    }
}

/// A newcomer that replaced a job is told so again, also if the job began to run since.
async fn is_told_what_its_copy_did(store: &Mongo) {
    let sending = Next::at("enqueue::before_send");
    let holder = keyed("first");
    let id = add(store, vec![holder]).await[0];
    let (at, copy) = (store.clone(), keyed("second"));
    let (again, far) = (copy.clone(), store.clone());
    sending.is(async move {
        must_replace(&at, copy).await;
        assert_eq!(claim(&at, 1).await.jobs[0].job.id, id);
    });
    tokio::spawn(async move { must_replace(&far, again).await }).await.expect("an answer");
    assert!(sending.has_happened());
}
