use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::time::Instant;

use super::store::Store;
use crate::backend::{Counts, QueueCounts, Registers, Space, Workers};
use crate::error::Result;
use crate::job::State;
use crate::name::QueueName;
use crate::time::{Deadline, Timestamp};

/// How often the store is asked at most.
const FRESH: Duration = Duration::from_secs(5);
/// How long it may take to answer all that is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many queues are shown, the first by name: each is several series.
const QUEUES: usize = 1_000;
/// How many workers are counted, the newest, and how many in one call.
const WORKERS: (usize, usize) = (1_000, 100);
/// How many schedules that are overdue are counted.
const SCHEDULES: usize = 100;
/// How late a schedule is that is overdue.
const OVERDUE: Duration = Duration::from_mins(1);

/// What an operator wants to see of a store, as gauges of the crate `metrics`; their names are in `docs/telemetry.md`.
///
/// The store is asked for what it counts anyway, and for a bounded number of workers and schedules. At most a thousand queues
/// and workers and a hundred schedules are told of.
#[derive(Debug)]
pub struct Gauges {
    store: Store,
    asked: tokio::sync::Mutex<Option<Instant>>,
    /// The queues that were shown: one that is gone is shown as empty.
    shown: Mutex<BTreeSet<QueueName>>,
}

/// What the store said.
struct Seen {
    hour: Timestamp,
    queues: Vec<QueueCounts>,
    alive: usize,
    lost: usize,
    overdue: usize,
}

impl Store {
    /// Gauges of this store. One for a process is enough; whoever shares it shares the answers.
    pub fn gauges(&self) -> Arc<Gauges> {
        Arc::new(Gauges {
            store: self.clone(),
            asked: tokio::sync::Mutex::default(),
            shown: Mutex::default(),
        })
    }
}

impl Gauges {
    /// Brings the gauges up to date, before they are read. The store is asked at most once in 5 s, however often and by
    /// however many this is called, and has 2 s to answer. If it does not, `leasehold_store_up` is 0, and the others stay as
    /// they were.
    pub async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return;
        }
        let seen = self.look().await;
        *asked = Some(Instant::now());
        gauge!("leasehold_store_up").set(f64::from(u8::from(seen.is_ok())));
        match seen {
            Ok(seen) => self.show(&seen),
            Err(error) => tracing::warn!(%error, "the store did not say how it stands"),
        }
    }

    async fn look(&self) -> Result<Seen> {
        let (backend, by) = (self.store.backend(), Deadline::after(PATIENCE));
        let mut queues = backend.counts(by, Counts { queues: None }).await?;
        queues.sort_unstable_by(|one, other| one.queue.cmp(&other.queue));
        queues.truncate(QUEUES);
        let (mut alive, mut lost, mut after) = (0, 0, None);
        for _ in 0..WORKERS.0 / WORKERS.1 {
            let limit = WORKERS.1.min(self.store.limits().page);
            let page = backend.workers(by, Workers { after, limit }).await?;
            lost += page.iter().filter(|worker| worker.lost).count();
            alive += page.iter().filter(|worker| worker.is_alive()).count();
            after = page.last().map(|worker| worker.worker);
            if page.len() < limit {
                break;
            }
        }
        let limit = SCHEDULES.min(self.store.limits().page);
        let due = backend.registers(by, Registers::due(Space::Schedule, limit)).await?;
        let late = |next: Timestamp| next.plus(OVERDUE) < due.hour;
        let overdue = due.registers.iter().filter(|register| register.next.is_some_and(late)).count();
        Ok(Seen { hour: due.hour, queues, alive, lost, overdue })
    }

    fn show(&self, seen: &Seen) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<_> = seen.queues.iter().map(|queue| queue.queue.clone()).collect();
        for gone in shown.difference(&now) {
            show_queue(&QueueCounts::empty(gone.clone()), seen.hour);
        }
        *shown = now;
        seen.queues.iter().for_each(|queue| show_queue(queue, seen.hour));
        gauge!("leasehold_workers", "state" => "alive").set(seen.alive as f64);
        gauge!("leasehold_workers", "state" => "lost").set(seen.lost as f64);
        gauge!("leasehold_schedules_overdue").set(seen.overdue as f64);
    }
}

fn show_queue(counts: &QueueCounts, hour: Timestamp) {
    let queue = counts.queue.to_string();
    for state in State::ALL {
        let labels = [("queue", queue.clone()), ("state", state.to_string())];
        gauge!("leasehold_jobs", &labels).set(counts.of(state) as f64);
    }
    let age = counts.oldest_due.map(|due| hour.since(due)).unwrap_or_default();
    gauge!("leasehold_oldest_due_seconds", "queue" => queue).set(age.as_secs_f64());
}
