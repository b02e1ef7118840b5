//! The clock of the server is set back and on under load.

use leasehold_conformance::Skew;
use leasehold_core::Backend;
use leasehold_mongo::Config;
use leasehold_test_servers::Mongo as Server;

use crate::bench::{again, fresh, set_up, soon};
use crate::load::Load;

/// By how many milliseconds it is off at worst: three times as long as a lease.
const STEP: i64 = 90_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_stepped_under_load_loses_nothing_and_fences_all() {
    let skew = Skew::new(0).expect("a clock that can be stepped");
    let server = Server::own_with(1, &skew.environment()).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let watcher = set_up(config.clone()).await;
    let hour = async || again(async || watcher.now(soon()).await).await.as_millis();
    let tally = Load::run(config, 600, 0, async |load| {
        for _ in 0..2 {
            for (off, step) in [(-STEP, -STEP), (0, STEP)] {
                load.settled(60).await;
                let before = hour().await;
                load.journal.clock_step(step).expect("written");
                skew.set(off).expect("stepped");
                let moved = hour().await - before;
                assert!((moved - step).abs() < STEP / 3, "the server's clock moved by {moved} ms");
            }
        }
        load.settled(60).await;
    })
    .await;
    println!("{tally:?}");
    assert_eq!(tally.faults, 4);
}
