//! A replica is promoted that did not get the last writes.

use leasehold_core::backend::{Answer, Enqueue, EnqueueAnswer, Renew, Renewal, Renewed};
use leasehold_core::{Backend, State};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::{Proxy, Redis as Server};

use crate::bench::{LEASE, SUCCEED, add, claim, find, job, must_add_up, set_up, settle, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promoted_replica_did_not_get_is_missing_and_nothing_else_is_wrong() {
    let primary = Server::own().expect("a server");
    let wire = Proxy::to(primary.port().expect("a port")).await.expect("a wire");
    let replica =
        Server::own_with(&["--replicaof", "127.0.0.1", &wire.port().to_string()], &[]).expect("a server");
    let before = set_up(Config::new(primary.url())).await;
    let (done, taken) = (add(&before, vec![job()]).await[0], add(&before, vec![job()]).await[0]);
    let held = claim(&before, 1).await.jobs.remove(0);
    assert_eq!(held.job.id, done);
    until("the replica has it all", async || {
        replica
            .run(&["HGET", &format!("{{leasehold}}:job:{done}"), "state"])
            .is_ok_and(|state| state == "running")
    })
    .await;
    wire.cut();
    // These are acknowledged, and lost: a success, a claim and a job.
    assert_eq!(settle(&before, &held, &SUCCEED).await, Answer::Applied);
    let stale = claim(&before, 1).await.jobs.remove(0);
    assert_eq!(stale.job.id, taken);
    let missing = job();
    add(&before, vec![missing.clone()]).await;
    primary.kill().expect("killed");
    replica.run(&["REPLICAOF", "NO", "ONE"]).expect("promoted");

    let after = set_up(Config::new(replica.url())).await;
    assert_eq!(find(&after, done).await.state, State::Running);
    // Whoever repeats what was lost has its effect, once.
    assert_eq!(settle(&after, &held, &SUCCEED).await, Answer::Applied);
    assert_eq!(settle(&after, &held, &SUCCEED).await, Answer::AlreadyApplied);
    let again = after.enqueue(soon(), Enqueue { jobs: vec![missing.clone()] }).await.expect("an answer");
    assert!(matches!(again[0].answer, EnqueueAnswer::Created));
    // A lease that the new primary knows nothing of is fenced, and its job is given to somebody else.
    assert_eq!(renew(&after, &stale).await, Renewed::Lost);
    let next = claim(&after, 1).await.jobs.remove(0);
    assert_eq!((next.job.id, next.job.attempt), (taken, 1));
    assert_eq!(settle(&after, &stale, &SUCCEED).await, Answer::Lost);
    assert_eq!(settle(&after, &next, &SUCCEED).await, Answer::Applied);
    assert_eq!(must_add_up(&after).await, 3);
}

async fn renew(store: &Redis, lease: &leasehold_core::LeasedJob) -> Renewed {
    let renewal = Renewal { job: lease.job.id, token: lease.token, lease: LEASE, progress: None };
    store.renew(soon(), Renew { renewals: vec![renewal] }).await.expect("an answer")[0]
}
