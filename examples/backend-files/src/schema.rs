//! The tables, which change in no way but by a [`Change`]: what an operation does and what a journal says are the
//! same thing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use leasehold_core::backend::{LogLine, QueueSettings, Register, SetAside, Space};
use leasehold_core::{
    ClaimId, Error, ErrorKind, JobId, JobOptions, JobRecord, Kind, LeaseToken, LimitKey, Payload, QueueName,
    Reason, RegisterName, Result, State, Timestamp, UniqueKey, WorkerId, limits,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::logs::Logs;
use crate::record::Row;
use crate::workers::Worker;

/// One change of the tables.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A job is there, or is now so.
    Job(Box<Row>),
    Deleted(JobId),
    /// A job took a unique key.
    Key(UniqueKey, JobId),
    Queue(QueueName, Queue),
    /// A claim was given these jobs.
    Claimed(ClaimId, Timestamp, Vec<JobId>),
    /// A job wrote lines, and so many with them under its lease.
    Logged(JobId, u64, Vec<LogLine>),
    /// All logs; only in a journal that was written anew.
    Logs(Logs),
    Worker(Box<Worker>),
    Forgotten(WorkerId),
    Register(Register),
    Unregistered(Space, RegisterName),
    /// The record of a job that cannot be read, and why; only in a journal that was written anew.
    Unreadable(JobId, Value, String),
    /// A claim told of the records of these jobs, which cannot be read.
    Told(Vec<JobId>),
}

/// A queue: its settings and its kept counts.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Queue {
    pub(crate) settings: QueueSettings,
    pub(crate) changed_at: Option<Timestamp>,
    /// Jobs ever taken in or moved in.
    pub(crate) enqueued: u64,
    /// Jobs deleted, pruned or moved out.
    pub(crate) deleted: u64,
    /// Jobs by state, where all that wait count as queued.
    #[serde(skip)]
    pub(crate) states: BTreeMap<State, u64>,
}

/// What jobs are found by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// All, by when they were taken in.
    Age(Timestamp),
    /// Those that wait, in the order of clause C6.
    Place(Reverse<i16>, Timestamp),
    /// Those that wait, by queue and due time.
    Due(QueueName, Timestamp),
    /// Those that run, by the end of the lease.
    Lease(Timestamp),
    /// Those that run, by limit key.
    Limit(LimitKey),
    /// Those that ended, by when they may be removed.
    Expiry(Timestamp),
}

/// Before all times and all ids, and after all ids.
pub(crate) const START: Timestamp = Timestamp::from_millis(i64::MIN);
const FIRST: JobId = JobId::from_uuid(Uuid::nil());
const LAST: JobId = JobId::from_uuid(Uuid::max());

/// All that the store holds.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) jobs: BTreeMap<JobId, Row>,
    pub(crate) index: BTreeSet<(By, JobId)>,
    /// The jobs whose latest record cannot be read, with that record and the reason (clause B3).
    pub(crate) unreadable: BTreeMap<JobId, (Value, String)>,
    /// Those of them of which no claim has told yet.
    untold: BTreeSet<JobId>,
    pub(crate) queues: BTreeMap<QueueName, Queue>,
    /// Who took each unique key last; whether it still holds it, its record tells.
    pub(crate) keys: BTreeMap<UniqueKey, JobId>,
    /// What each claim was given, and when.
    pub(crate) claims: HashMap<ClaimId, (Timestamp, Vec<JobId>)>,
    pub(crate) logs: Logs,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) registers: BTreeMap<(Space, RegisterName), Register>,
    /// What the present operation has changed so far.
    pub(crate) changes: Vec<Change>,
}

impl Tables {
    /// Changes something.
    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change.clone());
        self.apply(change);
    }

    pub(crate) fn put(&mut self, row: Row) {
        self.change(Change::Job(Box::new(row)));
    }

    /// The row of a job that runs under this lease, which may have run out: until somebody takes the job back,
    /// nobody else holds it.
    pub(crate) fn held(&self, job: JobId, token: LeaseToken) -> Option<&Row> {
        self.jobs.get(&job).filter(|row| row.token == Some(token))
    }

    /// The jobs from here to there, both included.
    pub(crate) fn between(&self, from: By, to: By) -> impl Iterator<Item = (&By, &Row)> {
        let entries = self.index.range((from, FIRST)..=(to, LAST));
        entries.filter_map(|(by, id)| Some((by, self.jobs.get(id)?)))
    }

    /// Tells of the records that cannot be read, of each only once.
    pub(crate) fn tell(&mut self) -> Vec<SetAside> {
        let told: Vec<JobId> = self.untold.iter().copied().collect();
        if !told.is_empty() {
            self.change(Change::Told(told.clone()));
        }
        let aside = |job| Some(SetAside { job: Some(job), why: self.unreadable.get(&job)?.1.clone() });
        told.into_iter().filter_map(aside).collect()
    }

    /// Does what a line of the journal says.
    pub(crate) fn replay(&mut self, line: &str) -> Result<()> {
        if let Ok(changes) = serde_json::from_str::<Vec<Change>>(line) {
            changes.into_iter().for_each(|change| self.apply(change));
            return Ok(());
        }
        let corrupt =
            |why| Error::new(ErrorKind::Corrupt, "a line of the journal is of no known form").caused_by(why);
        for value in serde_json::from_str::<Vec<Value>>(line).map_err(corrupt)? {
            let change = serde_json::from_value(value.clone()).or_else(|error| {
                let Some(id) = part(&value, "id") else { return Err(corrupt(error)) };
                Ok(Change::Unreadable(id, value, format!("the record cannot be read: {error}")))
            })?;
            self.apply(change);
        }
        Ok(())
    }

    /// Takes a job out of the way whose record cannot be read.
    fn set_aside(&mut self, id: JobId, record: Value, why: String) {
        if let Some(mut row) = self.remains(id, &record) {
            row.job.end(State::Failed, Some(Reason::Unreadable), row.job.enqueued_at);
            // Nobody knows when it ended, and nobody but an operator removes it.
            (row.token, row.job.finished_at, row.job.expires_at) = (None, None, None);
            self.apply_row(row);
        }
        self.untold.insert(id);
        self.unreadable.insert(id, (record, why));
    }

    /// What is known of a job from before, and what can still be read of its record: enough to count it.
    fn remains(&self, id: JobId, record: &Value) -> Option<Row> {
        let queue = part(record, "queue");
        if let Some(mut row) = self.jobs.get(&id).cloned() {
            row.job.queue = queue.unwrap_or(row.job.queue);
            return Some(row);
        }
        let (queue, at) = (queue.unwrap_or_default(), part(record, "enqueued_at").unwrap_or_default());
        let (kind, payload) = (Kind::new("unreadable").ok()?, Payload::default());
        let job = JobRecord::new(id, queue, kind, payload, JobOptions::default(), at, at);
        Some(Row { job, token: None, settled: None, logged: 0 })
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Job(row) => self.apply_row(*row),
            Change::Deleted(id) => self.delete(id),
            Change::Key(key, job) => drop(self.keys.insert(key, job)),
            Change::Queue(name, queue) => {
                let known = self.queues.entry(name).or_default();
                *known = Queue { states: std::mem::take(&mut known.states), ..queue };
            }
            Change::Claimed(claim, now, jobs) => {
                // A claim is not repeated after that (clause E2).
                self.claims.retain(|_, (at, _)| now.since(*at) <= limits::CLAIM_MEMORY);
                self.claims.insert(claim, (now, jobs));
            }
            Change::Logged(job, logged, lines) => {
                self.jobs.entry(job).and_modify(|row| row.logged = logged);
                self.logs.add(job, lines);
            }
            Change::Logs(logs) => self.logs = logs,
            Change::Worker(worker) => drop(self.workers.insert(worker.record.worker, *worker)),
            Change::Forgotten(worker) => drop(self.workers.remove(&worker)),
            Change::Register(register) => {
                drop(self.registers.insert((register.space, register.name.clone()), register));
            }
            Change::Unregistered(space, name) => drop(self.registers.remove(&(space, name))),
            Change::Unreadable(id, record, why) => self.set_aside(id, record, why),
            Change::Told(jobs) => self.untold.retain(|id| !jobs.contains(id)),
        }
    }

    fn apply_row(&mut self, row: Row) {
        let before = self.take_out(row.job.id).map(|old| old.job.queue);
        let queue = self.queues.entry(row.job.queue.clone()).or_default();
        *queue.states.entry(row.counted_as()).or_default() += 1;
        if before.as_ref() != Some(&row.job.queue) {
            queue.enqueued += 1;
            if let Some(left) = before.and_then(|name| self.queues.get_mut(&name)) {
                left.deleted += 1;
            }
        }
        self.index.extend(row.found_by().map(|by| (by, row.job.id)));
        self.jobs.insert(row.job.id, row);
    }

    fn delete(&mut self, id: JobId) {
        self.unreadable.remove(&id);
        self.untold.remove(&id);
        self.logs.forget(id);
        let Some(row) = self.take_out(id) else { return };
        self.queues.entry(row.job.queue).or_default().deleted += 1;
        let key = row.job.options.unique.map(|unique| unique.key);
        if let Some(key) = key.filter(|key| self.keys.get(key) == Some(&id)) {
            self.keys.remove(&key);
        }
    }

    fn take_out(&mut self, id: JobId) -> Option<Row> {
        let row = self.jobs.remove(&id)?;
        for by in row.found_by() {
            self.index.remove(&(by, id));
        }
        let states = &mut self.queues.entry(row.job.queue.clone()).or_default().states;
        *states.entry(row.counted_as()).or_default() -= 1;
        Some(row)
    }

    /// The changes that make these tables from nothing.
    pub(crate) fn all(&self) -> Vec<Change> {
        let mut all: Vec<Change> =
            self.jobs.values().cloned().map(|row| Change::Job(Box::new(row))).collect();
        all.extend(self.queues.iter().map(|(name, queue)| Change::Queue(name.clone(), queue.clone())));
        all.extend(self.keys.iter().map(|(key, job)| Change::Key(key.clone(), *job)));
        let given = |(claim, (at, jobs)): (&_, &(_, Vec<_>))| Change::Claimed(*claim, *at, jobs.clone());
        all.extend(self.claims.iter().map(given));
        all.push(Change::Logs(self.logs.clone()));
        all.extend(self.workers.values().cloned().map(|worker| Change::Worker(Box::new(worker))));
        all.extend(self.registers.values().cloned().map(Change::Register));
        let aside = |(id, (record, why)): (&_, &(Value, String))| {
            Change::Unreadable(*id, record.clone(), why.clone())
        };
        all.extend(self.unreadable.iter().map(aside));
        let told = self.unreadable.keys().filter(|id| !self.untold.contains(id));
        all.push(Change::Told(told.copied().collect()));
        all
    }
}

/// A part of the record of a job, if that part can be read.
fn part<T: DeserializeOwned>(record: &Value, name: &str) -> Option<T> {
    serde_json::from_value(record.pointer("/Job/job")?.get(name)?.clone()).ok()
}
