//! Measures the Leasehold job queue beside other queues, in one run on one machine.
//!
//! ```text
//! cargo run --release -- --store sqlite,postgres --jobs 10000 --rounds 3
//! ```
//!
//! Every contestant gets the same jobs in a store of its own: a file, a database, an emptied server. Rounds go
//! through the contestants in turn, every second one backwards, and the median counts.

mod ground;
mod options;
mod peers;
mod report;
mod versions;

use clap::Parser;
use leasehold_peers_round::{Round, Trouble};

use self::ground::Ground;
use self::options::{Options, Store};
use self::peers::Contestant;
use self::report::Row;

#[tokio::main]
async fn main() -> Result<(), Trouble> {
    let options = Options::parse();
    let mut rows = Vec::new();
    for store in options.stores() {
        rows.extend(on_one_store(&options, store).await?);
    }
    report::print(&options, &rows);
    Ok(())
}

async fn on_one_store(options: &Options, store: Store) -> Result<Vec<Row>, Trouble> {
    let ground = Ground::new(store, options.folder.clone()).await?;
    let mut rows: Vec<Row> =
        peers::all(store).into_iter().filter(|one| options.wants(one.peer)).map(Row::new).collect();
    for number in 1..=options.rounds {
        let mut turns: Vec<&mut Row> = rows.iter_mut().filter(|row| !row.is_out()).collect();
        if number % 2 == 0 {
            turns.reverse();
        }
        for row in turns {
            let (peer, config) = (row.contestant.peer, &row.contestant.config);
            eprint!("{store}, round {number}: {peer}, {config} ...");
            let outcome = one_round(options, &ground, &row.contestant).await;
            eprintln!(" {}", report::in_short(&outcome));
            row.add(outcome);
        }
    }
    Ok(rows)
}

async fn one_round(options: &Options, ground: &Ground, contestant: &Contestant) -> Result<Round, Trouble> {
    let place = ground.place().await?;
    let round = (contestant.play)(place.url.clone(), options.course()).await;
    place.clear().await?;
    round
}
