//! Queues in which much stands in the way: full limit keys, damaged records, many queues.

use leasehold_core::Backend;
use leasehold_mongo::Config;
use leasehold_test_servers::Mongo as Server;

use crate::bench::{add, claim, fresh, job, jobs, set_up};

#[tokio::test(flavor = "multi_thread")]
async fn full_limit_keys_do_not_block_what_stands_behind_them() {
    let server = Server::own(1).expect("a server");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    let limited = || (0..40).map(|n| job().limit(format!("key-{n}").parse().expect("a key"), 1)).collect();
    add(&store, limited()).await;
    assert_eq!(claim(&store, 40).await.jobs.len(), 40);
    add(&store, limited()).await;
    let free = add(&store, jobs(1)).await[0];
    let claimed = claim(&store, 1).await.jobs;
    assert_eq!(claimed.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [free]);
}
