use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;
use leasehold_core::Limits;
use leasehold_core::client::Store;
use leasehold_core::worker::Worker;
use tokio::time::sleep;

use super::Name;
use super::rounds::{drain, enqueue};
use crate::Trouble;
use crate::child::Child;
use crate::options::Options;
use crate::report::{Asked, Report, Row};
use crate::sample::Sample;
use crate::stores::{Kind, Opened, Stores};

/// How long a worker with nothing to do is watched. It polls once a second.
const WATCHED: Duration = Duration::from_secs(20);
/// How long it is left alone before.
const SETTLING: Duration = Duration::from_secs(3);
/// How many processes with nothing to do stand beside a busy queue.
const CROWD: usize = 16;
/// The busy queue's batches.
const BATCH: usize = 500;

pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    for kind in options.backends() {
        progress.set_message(format!("idle, {kind}, asked"));
        let opened = stores.open(kind).await?;
        let commands = watch(&opened).await?;
        report.asked.push(Asked { kind, commands, seconds: WATCHED.as_secs_f64() });
        let shared = opened.place().is_some();
        opened.close().await?;
        if shared {
            beside(options, stores, kind, progress, report).await?;
        }
    }
    Ok(())
}

/// What a worker with nothing to do asks its store for, by name where the store tells.
async fn watch(opened: &Opened) -> Result<BTreeMap<String, u64>, Trouble> {
    let backend = opened.backend().ok_or("only a backend has workers")?;
    // The same handle, or calls of another would not be counted.
    let store = Store::with_limits(std::sync::Arc::new(backend.clone()), Limits::default());
    let worker = Worker::builder(&store).handle("never", || async {}).build()?.start();
    sleep(SETTLING).await;
    let before = backend.asked().await?;
    sleep(WATCHED).await;
    let mut commands = backend.asked().await?;
    for (name, count) in &mut commands {
        *count -= before.get(name).unwrap_or(&0);
    }
    commands.retain(|_, count| *count > 0);
    worker.stop().await?;
    Ok(commands)
}

/// The speed of one busy queue alone, and with processes beside it that wait at another queue of the same store.
async fn beside(
    options: &Options,
    stores: &Stores,
    kind: Kind,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for round in 1..=options.rounds() {
        for (with, samples) in [0, CROWD].into_iter().zip(&mut samples) {
            progress.set_message(format!("idle, {kind}, beside {with}, round {round}"));
            let opened = stores.open(kind).await?;
            samples.push(one_round(&opened, options.jobs(BATCH), with).await?);
            opened.close().await?;
        }
    }
    let [alone, beside] = samples.map(Sample::median);
    for (with, sample) in [(0, alone), (CROWD, beside)] {
        let Some(sample) = sample else { continue };
        let (name, case, naive) = (Name::Idle, format!("end to end beside {with} idle"), None);
        report.rows.push(Row { name, case, kind, claimers: 1, batch: BATCH, sample, limit: alone, naive });
    }
    Ok(())
}

async fn one_round(opened: &Opened, jobs: usize, with: usize) -> Result<Sample, Trouble> {
    let place = opened.place().ok_or("this store is of one process")?;
    let mut crowd = Vec::new();
    for _ in 0..with {
        crowd.push(Child::Idle { place: place.clone() }.start().await?);
    }
    sleep(SETTLING).await;
    let target = opened.target();
    let enqueued = enqueue(&target, jobs, 1, BATCH).await?;
    let sample = enqueued.then(drain(&target, jobs, 1, BATCH).await?);
    for process in crowd {
        process.stop().await?;
    }
    Ok(sample)
}
