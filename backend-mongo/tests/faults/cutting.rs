//! The wire between a worker and its server is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold_core::backend::{Answer, Find};
use leasehold_core::{Attempt, Backend, ClaimId, JobId, LeaseToken, State, Store, Worker};
use leasehold_mongo::mongodb::bson::{Bson, Document, doc};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::{Mongo as Server, Proxy};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::bench::{add, database, find, fresh, job, set_up, soon, until};

const LEASE: Duration = Duration::from_secs(3);

/// A worker behind a wire that can be cut, and what its handlers did.
struct Far {
    near: Mongo,
    proxy: Proxy,
    config: Config,
    _server: Server,
}

#[derive(Default)]
struct Seen {
    starts: AtomicUsize,
    ends: AtomicUsize,
    go_on: Notify,
}

/// A handler under way: it has ended when this is gone, also if it was not asked.
struct Running(Arc<Seen>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ends.fetch_add(1, Ordering::SeqCst);
    }
}

impl Far {
    async fn start() -> Self {
        let server = Server::own(1).expect("a server");
        let proxy = Proxy::to(server.nodes()[0].port()).await.expect("a proxy");
        let database = fresh();
        let near = set_up(Config::new(server.url()).database(&database)).await;
        let through = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
        Self { near, proxy, config: Config::new(through).database(database), _server: server }
    }

    /// The token under which a job runs now.
    async fn token(&self, job: JobId) -> LeaseToken {
        let jobs = database(self.near.client(), &self.config).collection::<Document>("leasehold_jobs");
        let found =
            jobs.find_one(doc! {"state": "running"}).await.expect("an answer").expect("a job that runs");
        let Some(Bson::Binary(claim)) = found.get("claim") else { panic!("no claim: {found}") };
        let bytes: [u8; 16] = claim.bytes.as_slice().try_into().expect("an id");
        ClaimId::from_uuid(uuid::Uuid::from_bytes(bytes)).token(job)
    }
}

fn worker(store: Mongo, seen: &Arc<Seen>) -> Worker {
    let seen = Arc::clone(seen);
    let handler = move |_: Attempt| {
        let running = Running(Arc::clone(&seen));
        async move {
            running.0.starts.fetch_add(1, Ordering::SeqCst);
            running.0.go_on.notified().await;
        }
    };
    Worker::builder(&Store::new(store).patience(Duration::from_secs(1)))
        .lease(LEASE)
        .poll(Duration::from_millis(100))
        .recovery(Duration::from_millis(200))
        .handle("work", handler)
        .build()
        .expect("a worker")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_shorter_than_the_lease_goes_unnoticed_by_the_job() {
    let far = Far::start().await;
    let seen = Arc::new(Seen::default());
    let id = add(&far.near, vec![job()]).await[0];
    let running = worker(Mongo::with(far.config.clone()).await.expect("a store"), &seen).start();
    until("the job runs", async || seen.starts.load(Ordering::SeqCst) == 1).await;
    let before = find(&far.near, id).await.lease_until.expect("a lease");
    for stall in [true, false] {
        if stall {
            far.proxy.stall();
        } else {
            far.proxy.cut();
        }
        sleep(LEASE / 3).await;
        far.proxy.heal();
        until("its lease was renewed since", async || {
            find(&far.near, id).await.lease_until.expect("a lease") > before.plus(LEASE / 3)
        })
        .await;
    }
    seen.go_on.notify_one();
    until("the job has ended", async || find(&far.near, id).await.state == State::Succeeded).await;
    let ended = find(&far.near, id).await;
    assert_eq!((ended.attempt, ended.crashes, seen.starts.load(Ordering::SeqCst)), (1, 0, 1));
    running.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_longer_than_the_lease_ends_the_handler_before_it_and_the_job_runs_elsewhere() {
    let far = Far::start().await;
    let (here, there) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let id = add(&far.near, vec![job()]).await[0];
    let cut_off = worker(Mongo::with(far.config.clone()).await.expect("a store"), &here).start();
    until("the job runs", async || here.starts.load(Ordering::SeqCst) == 1).await;
    let token = far.token(id).await;
    far.proxy.stall();
    until("the handler has ended", async || here.ends.load(Ordering::SeqCst) == 1).await;
    let ended = far.near.now(soon()).await.expect("the hour");
    let lease = find(&far.near, id).await.lease_until.expect("nobody has taken it back yet");
    assert!(ended <= lease, "it ended {:?} too late", ended.since(lease));
    let healthy = worker(far.near.clone(), &there).start();
    until("the job runs elsewhere", async || there.starts.load(Ordering::SeqCst) == 1).await;
    assert_ne!(far.token(id).await, token);
    far.proxy.heal();
    // What the first worker may still have to say, at the worst moment: while the second holds the job.
    let verdict = leasehold_core::backend::Verdict::Fail { reason: leasehold_core::Reason::Error };
    let settlement = leasehold_core::backend::Settlement { job: id, token, verdict, failure: None };
    let late = leasehold_core::backend::Settle { settlements: vec![settlement] };
    let reconnected = Mongo::with(far.config.clone()).await.expect("the wire is whole");
    assert_eq!(reconnected.settle(soon(), late).await.expect("an answer"), [Answer::Lost]);
    there.go_on.notify_one();
    until("the job has ended", async || find(&far.near, id).await.state == State::Succeeded).await;
    let ended = far.near.find(soon(), Find { ids: vec![id] }).await.expect("an answer").remove(0);
    let ended = ended.expect("the job");
    assert_eq!((ended.attempt, ended.crashes), (2, 1));
    assert_eq!(ended.worker, Some(healthy.id()));
    healthy.stop().await.expect("stopped");
    cut_off.stop().await.expect("stopped");
    assert_eq!(find(&far.near, id).await.state, State::Succeeded);
}
