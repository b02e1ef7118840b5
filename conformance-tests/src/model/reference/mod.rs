//! A queue written to be read: what the contract says, and not how to be fast. It keeps one map of jobs; who holds a
//! key, how many jobs run under a limit and how many are in a state it finds by looking at all of them.

mod claiming;
mod looking;
mod moving;
mod operating;
mod producing;
mod settling;

pub(super) use self::producing::Entry;

use std::collections::BTreeMap;

use leasehold_core::backend::{QueueSettings, Register, Space, WorkerRecord};
use leasehold_core::{
    ClaimId, JobId, JobRecord, LeaseToken, LimitKey, QueueName, RegisterName, State, Timestamp, UniqueKey,
    UniqueScope, WorkerId,
};

/// The reference. Its hour is set before each call.
#[derive(Debug, Default)]
pub(super) struct Reference {
    pub(super) now: Timestamp,
    jobs: BTreeMap<JobId, Job>,
    queues: BTreeMap<QueueName, Queue>,
    /// What each claim was given, in order, and when.
    claims: BTreeMap<ClaimId, (Timestamp, Vec<JobId>)>,
    registers: BTreeMap<(Space, RegisterName), Register>,
    workers: BTreeMap<WorkerId, Worker>,
}

/// A job, and what only its store knows of it.
#[derive(Debug)]
struct Job {
    /// Its state is `Scheduled` or `Queued` as of the last look.
    record: JobRecord,
    /// The lease that it runs under.
    token: Option<LeaseToken>,
    /// Its latest settlement: under which lease, what, and whether a recoverer wrote it.
    settled: Option<(LeaseToken, &'static str, bool)>,
    /// What was logged under the present or latest lease.
    logged: u64,
    lines: Vec<Line>,
    /// The newcomers that replaced it, the latest last.
    replaced: Vec<JobId>,
}

/// A log line but for its sequence, which is the store's own affair.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) attempt: u32,
    pub(super) worker: Option<WorkerId>,
    pub(super) at: Timestamp,
    pub(super) message: String,
}

#[derive(Debug, Default)]
struct Queue {
    settings: QueueSettings,
    enqueued: u64,
    deleted: u64,
}

#[derive(Debug)]
struct Worker {
    record: WorkerRecord,
    lost_after: std::time::Duration,
}

impl Reference {
    /// An empty store at this hour.
    pub(super) fn at(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }

    /// The moments that something waits for, of which any may be the one that a store takes for the one before or
    /// after.
    pub(super) fn edges(&self) -> Vec<Timestamp> {
        let mut edges: Vec<Timestamp> = Vec::new();
        for job in self.jobs.values() {
            let record = &job.record;
            edges.extend([Some(record.due), record.lease_until, record.expires_at].into_iter().flatten());
            if let Some(UniqueScope::For(period)) = record.options.unique.as_ref().map(|unique| unique.scope)
            {
                edges.push(record.enqueued_at.plus(period));
            }
        }
        edges.extend(self.registers.values().flat_map(|it| [it.next, it.expires]).flatten());
        edges.extend(self.workers.values().map(|worker| worker.record.seen_at.plus(worker.lost_after)));
        // Nobody waits for the hour at which parked jobs would be due.
        edges.retain(|edge| *edge >= self.now && *edge < Timestamp::MAX);
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    /// A job that is held under this token, which may have run out: until it is recovered, nobody else holds it.
    fn held(&mut self, job: JobId, token: LeaseToken) -> Option<&mut Job> {
        self.jobs.get_mut(&job).filter(|job| job.token == Some(token))
    }

    /// Who holds a unique key.
    fn holder(&self, key: &UniqueKey) -> Option<JobId> {
        self.jobs.values().find(|job| job.holds(key, self.now)).map(|job| job.record.id)
    }

    /// How many jobs run under a limit key.
    fn running(&self, key: &LimitKey) -> usize {
        let runs = |job: &&Job| {
            job.record.state == State::Running
                && job.record.options.limit.as_ref().is_some_and(|limit| limit.key == *key)
        };
        self.jobs.values().filter(runs).count()
    }

    fn queue(&mut self, name: &QueueName) -> &mut Queue {
        self.queues.entry(name.clone()).or_default()
    }
}

impl Job {
    fn new(record: JobRecord) -> Self {
        Self { record, token: None, settled: None, logged: 0, lines: Vec::new(), replaced: Vec::new() }
    }

    /// The job as it is now: a scheduled one is queued as soon as it is due.
    fn seen(&self, now: Timestamp) -> JobRecord {
        let mut record = self.record.clone();
        if record.state.is_waiting() {
            record.state = if record.due > now { State::Scheduled } else { State::Queued };
        }
        record
    }

    fn holds(&self, key: &UniqueKey, now: Timestamp) -> bool {
        let record = &self.record;
        let Some(unique) = record.options.unique.as_ref().filter(|unique| unique.key == *key) else {
            return false;
        };
        match unique.scope {
            UniqueScope::UntilClaimed => record.started_at.is_none() && !self.was_ended(),
            UniqueScope::UntilFinished => !record.state.is_terminal(),
            UniqueScope::For(period) => now <= record.enqueued_at.plus(period),
        }
    }

    fn was_ended(&self) -> bool {
        self.record.state.is_terminal() || self.record.generation > 0
    }
}
