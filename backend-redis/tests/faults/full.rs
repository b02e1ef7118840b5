//! The server has no memory left.

use leasehold_core::backend::{AmendAnswer, Answer, Enqueue, Renew, Renewal, Renewed};
use leasehold_core::{Backend, ErrorKind, NewJob, Payload};
use leasehold_redis::Config;
use leasehold_test_servers::Redis as Server;

use crate::bench::{SUCCEED, add, claim, delete, job, must_add_up, set_up, settle, soon};

fn large() -> NewJob {
    let mut job = job().unique(
        format!("u{}", leasehold_core::JobId::generate()).parse().expect("a key"),
        leasehold_core::UniqueScope::UntilFinished,
    );
    job.payload = Payload::from(vec![7; 20_000]);
    job
}

#[tokio::test]
async fn a_full_server_takes_nothing_by_halves_and_lets_what_it_has_be_done() {
    let server =
        Server::own_with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let mut there = Vec::new();
    let error = loop {
        let jobs = vec![large(), large(), large()];
        match store.enqueue(soon(), Enqueue { jobs }).await {
            Ok(answers) => there.extend(answers.into_iter().map(|answer| answer.job)),
            Err(error) => break error,
        }
        assert!(there.len() < 5_000, "it never filled up");
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert!(error.is_transient() && error.to_string().contains("`maxmemory`"), "{error}");
    assert_eq!(must_add_up(&store).await, there.len());
    // What makes room, or is on its way out, goes on.
    let leases = claim(&store, 5).await.jobs;
    assert_eq!(leases.len(), 5);
    for lease in &leases {
        assert_eq!(settle(&store, lease, &SUCCEED).await, Answer::Applied);
    }
    for job in &there[..100] {
        assert_eq!(delete(&store, *job).await, AmendAnswer::Applied);
    }
    assert_eq!(must_add_up(&store).await, there.len() - 100);
    server.run(&["MEMORY", "PURGE"]).expect("purged");
    add(&store, vec![large()]).await;
}

#[tokio::test]
async fn a_full_server_takes_no_job_away_from_its_holder() {
    let server =
        Server::own_with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    add(&store, vec![job()]).await;
    let lease = claim(&store, 1).await.jobs.remove(0);
    while store.enqueue(soon(), Enqueue { jobs: vec![large(), large(), large()] }).await.is_ok() {}
    let (job, token) = (lease.job.id, lease.token);
    let renewals = vec![Renewal { job, token, lease: lease.lease, progress: None }];
    let renewed = store.renew(soon(), Renew { renewals }).await.expect("an answer");
    assert!(matches!(renewed[..], [Renewed::Held { .. }]), "{renewed:?}");
}
