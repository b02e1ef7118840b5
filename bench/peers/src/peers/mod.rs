//! Those who are measured: one module each.

mod apalis;
mod effectum;
mod graphile;
mod leasehold;

use std::pin::Pin;

use leasehold_peers_round::{Course, Queue, Round, Trouble, play};

use crate::options::{Peer, Store};

/// How many jobs go in by one call, where a call takes many.
const CHUNK: usize = 1_000;

/// A queue, where it keeps its jobs and how it is set.
pub(crate) struct Contestant {
    pub(crate) peer: Peer,
    pub(crate) store: Store,
    /// The package whose version is shown.
    pub(crate) package: &'static str,
    pub(crate) config: String,
    /// Plays a round in the empty store at this URL.
    pub(crate) play: Play,
}

pub(crate) type Play = Box<dyn Fn(String, Course) -> Outcome>;
type Outcome = Pin<Box<dyn Future<Output = Result<Round, Trouble>>>>;

/// All who have such a store; the first one is what the others are compared with.
pub(crate) fn all(store: Store) -> Vec<Contestant> {
    let lists = [leasehold::contestants(store), apalis::contestants(store)];
    let more = match store {
        Store::Sqlite => effectum::contestants(),
        Store::Postgres => graphile::contestants(),
        Store::Memory | Store::Redis => Vec::new(),
    };
    lists.into_iter().flatten().chain(more).collect()
}

/// Opens a queue for each round and plays on it.
fn on<Q: Queue + 'static, F: Future<Output = Result<Q, Trouble>> + 'static>(
    open: impl Fn(String) -> F + 'static,
) -> Play {
    Box::new(move |url, course| {
        let opening = open(url);
        Box::pin(async move { play(&opening.await?, course).await })
    })
}
