//! Three nodes, of which the primary goes in every way there is.

use std::time::Duration;

use leasehold_core::backend::{Counts, Enqueue, Expired, Prune, Renew, Renewal, Settle};
use leasehold_core::{Backend, Deadline, ErrorKind, Result};
use leasehold_mongo::Config;
use leasehold_test_servers::Mongo as Server;
use tokio::time::Instant;

use crate::bench::{
    LEASE, SUCCEED, add, again, asking, claim, counts, fresh, job, jobs, set_up, settling, until,
};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_steps_down_or_dies_under_load_loses_nothing() {
    let server = Server::own(3).expect("servers");
    let config = Config::new(server.url()).database(fresh());
    let tally = Load::run(config, 500, 1, async |load| {
        for round in 0..2 {
            load.settled(50).await;
            load.journal.fault(format!("step down {round}")).expect("written");
            let primary = server.primary().await.expect("a primary");
            // The server closes its connections while it steps down, maybe this one too.
            let _ = primary.step_down(5).await;
            load.settled(50).await;
            let primary = server.primary().await.expect("a primary");
            load.journal.fault(format!("kill {round}")).expect("written");
            primary.kill().expect("killed");
            load.settled(50).await;
            primary.start().expect("started");
        }
    })
    .await;
    println!("{tally:?}");
    // Whoever repeats a claim finds what it was given, but for one whose note went with its primary (decision 4).
    assert!(tally.losses <= 10, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_holds_no_call_beyond_its_deadline_and_loses_nothing() {
    const PATIENCE: Duration = Duration::from_millis(1_500);
    const MORE: Duration = Duration::from_millis(500);
    let server = Server::own(3).expect("servers");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    add(&store, jobs(4)).await;
    let leases = claim(&store, 2).await.jobs;
    let lease = leases[0].clone();
    let primary = server.primary().await.expect("a primary");
    primary.freeze().expect("frozen");
    let late = jobs(2);
    let d = || Deadline::after(PATIENCE);
    let renewal = Renewal { job: lease.job.id, token: lease.token, lease: LEASE, progress: None };
    let writes = async |call: std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>| {
        let begun = Instant::now();
        let outcome = call.await;
        assert!(begun.elapsed() < PATIENCE + MORE, "{:?}: {outcome:?}", begun.elapsed());
        outcome.map_err(|error| error.kind())
    };
    macro_rules! made {
        ($name:ident, $request:expr) => {
            writes(Box::pin(async { store.$name(d(), $request).await.map(drop) }))
        };
    }
    let outcomes = tokio::join!(
        made!(enqueue, Enqueue { jobs: late.clone() }),
        made!(claim, asking(2)),
        made!(renew, Renew { renewals: vec![renewal] }),
        made!(settle, settling(&leases, &SUCCEED)),
        made!(prune, Prune { limit: 1, workers_after: LEASE }),
        made!(expired, Expired { limit: 1 }),
        made!(counts, Counts::default()),
    );
    println!("{outcomes:?}");
    let (enqueued, claimed, renewed, settled, pruned, expired, counted) = outcomes;
    // They were sent to a server that may still do them: nobody may call them failed.
    for written in [enqueued, claimed, renewed, settled, pruned, expired] {
        assert_eq!(written, Err(ErrorKind::Unknown));
    }
    assert_eq!(counted, Err(ErrorKind::Unavailable));
    let begun = Instant::now();
    again(async || store.enqueue(Deadline::default(), Enqueue { jobs: late.clone() }).await).await;
    println!("written again {:?} after the deadline", begun.elapsed());
    again(async || store.settle(Deadline::default(), settling(&leases, &SUCCEED)).await).await;
    primary.thaw().expect("thawed");
    until("the old primary has stepped back", async || !primary.is_primary().await).await;
    assert_eq!(counts(&store).await.total(), 6);
    add(&store, vec![job()]).await;
    assert_eq!(claim(&store, 9).await.jobs.len(), 5);
    let nothing: Settle = settling(&[], &SUCCEED);
    assert!(store.settle(Deadline::default(), nothing).await.expect("an answer").is_empty());
}
