//! Queues of bare payloads.

mod ends;
mod lists;
mod sets;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use leasehold_core::backend::Prune;
use leasehold_core::client::Raw;
use leasehold_core::worker::{RawOptions, WorkerBuilder};
use leasehold_core::{JobRecord, Payload, State, Store, Worker};

/// How often each payload was run.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<BTreeMap<String, u32>>>);

impl Runs {
    /// Notes a run, and tells which it is.
    fn note(&self, payload: &Payload) -> (String, u32) {
        let text = String::from_utf8(payload.as_bytes().to_vec()).unwrap();
        let mut runs = self.0.lock().unwrap();
        let count = runs.entry(text.clone()).or_default();
        *count += 1;
        (text, *count)
    }

    fn of(&self, payload: &str) -> u32 {
        self.0.lock().unwrap().get(payload).copied().unwrap_or_default()
    }

    fn all(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap().clone()
    }

    fn sum(&self) -> u32 {
        self.0.lock().unwrap().values().sum()
    }
}

fn raw(store: &Store) -> Raw {
    store.queue("raw").unwrap().raw("click").unwrap()
}

/// Payloads that are numbers.
fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

fn builder(store: &Store) -> WorkerBuilder {
    Worker::builder(store).queue("raw")
}

/// A worker that notes what it runs.
fn noting(store: &Store, runs: &Runs) -> WorkerBuilder {
    let runs = runs.clone();
    let note = move |payload: Payload| {
        runs.note(&payload);
        async {}
    };
    builder(store).handle_raw("click", RawOptions::default(), note)
}

async fn jobs(store: &Store) -> Vec<JobRecord> {
    leasehold_core::testing::enqueued(store, "click").await.unwrap()
}

/// All that is left in the store once what need not be kept is removed.
async fn left(store: &Store) -> u64 {
    let prune = Prune { limit: 1_000, workers_after: std::time::Duration::from_secs(60) };
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    while store.backend().prune(Default::default(), prune).await.unwrap().more {}
    let counts = store.queue("raw").unwrap().counts().await.unwrap();
    [State::Scheduled, State::Queued, State::Running, State::Succeeded, State::Failed, State::Cancelled]
        .into_iter()
        .map(|state| counts.of(state))
        .sum()
}
