//! The tables and their indexes. An operation takes a job out of the indexes of its present state
//! ([`Tables::leave`]), changes its row, and puts it into those of its new one ([`Tables::enter`]).

mod lane;
mod queue;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foldhash::HashMap;
use leasehold_core::backend::{Event, Register, Space};
use leasehold_core::{
    ClaimId, JobId, LeaseToken, LimitKey, QueueName, RegisterName, State, Timestamp, Unique, UniqueKey,
    UniqueScope, WorkerId, limits,
};
use slab::Slab;

pub(crate) use self::lane::{Demand, Head, Place};
pub(crate) use self::queue::Queue;
use crate::config::Config;
use crate::logs::Logs;
use crate::record::Row;
use crate::workers::Worker;

/// How many jobs that one operation changed are told one by one.
const ONE_BY_ONE: usize = 64;

/// All that the store holds.
pub(crate) struct Tables {
    pub(crate) config: Config,
    /// The jobs. Boxed, so that a growing table moves pointers and not rows.
    pub(crate) rows: Slab<Box<Row>>,
    ids: HashMap<JobId, usize>,
    /// By when they were taken in: the order of lists.
    pub(crate) by_age: BTreeMap<(Timestamp, JobId), usize>,
    /// Queues, which are never forgotten, so that an index names one for ever.
    pub(crate) queues: Vec<Queue>,
    pub(crate) queue_names: BTreeMap<QueueName, usize>,
    /// The running jobs by the end of their leases.
    pub(crate) leases: BTreeSet<(Timestamp, usize)>,
    /// What each claim was given, as long as jobs run under it or it may be repeated.
    pub(crate) claims: HashMap<ClaimId, Grant>,
    /// The same claims, the first to be forgotten first.
    granted: VecDeque<(Timestamp, ClaimId)>,
    /// Claims of which nothing ran any more when an operation looked last: their jobs need no place.
    over: Vec<ClaimId>,
    /// How many jobs of each limit key run.
    running: HashMap<LimitKey, u32>,
    /// Who holds each unique key.
    keys: HashMap<UniqueKey, Holder>,
    /// The jobs that newcomers of these ids replaced.
    replaced: HashMap<JobId, JobId>,
    /// The ended jobs by when they may be removed.
    pub(crate) expiry: BTreeSet<(Timestamp, usize)>,
    pub(crate) logs: Logs,
    pub(crate) registers: BTreeMap<(Space, RegisterName), Register>,
    /// The registers that expire, by when.
    pub(crate) register_expiry: BTreeSet<(Timestamp, (Space, RegisterName))>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Whether anybody watches; if not, no event is made.
    pub(crate) watched: bool,
    /// What the present operation has to tell.
    events: Vec<Event>,
    /// The jobs that it changed. One more than are told one by one shows that there are too many.
    changed: Vec<Event>,
    /// The queues in which it made jobs wait.
    woken: BTreeSet<usize>,
}

/// What a claim was given.
pub(crate) struct Grant {
    /// The jobs in the order of the claim.
    pub(crate) jobs: Vec<JobId>,
    /// How many of them still run under it.
    running: usize,
}

/// Who holds a unique key, and until when.
struct Holder {
    job: JobId,
    until: Timestamp,
}

impl Tables {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            rows: Slab::new(),
            ids: HashMap::default(),
            by_age: BTreeMap::new(),
            queues: Vec::new(),
            queue_names: BTreeMap::new(),
            leases: BTreeSet::new(),
            claims: HashMap::default(),
            granted: VecDeque::new(),
            over: Vec::new(),
            running: HashMap::default(),
            keys: HashMap::default(),
            replaced: HashMap::default(),
            expiry: BTreeSet::new(),
            logs: Logs::default(),
            registers: BTreeMap::new(),
            register_expiry: BTreeSet::new(),
            workers: BTreeMap::new(),
            watched: false,
            events: Vec::new(),
            changed: Vec::new(),
            woken: BTreeSet::new(),
        }
    }

    /// Where the row of a job is.
    pub(crate) fn slot(&self, job: JobId) -> Option<usize> {
        self.ids.get(&job).copied()
    }

    /// Where the row of a job is that runs under this lease.
    pub(crate) fn held(&self, job: JobId, token: LeaseToken) -> Option<usize> {
        self.slot(job).filter(|&slot| self.rows[slot].is_held_by(token))
    }

    /// The index of a queue, which is known from here on.
    pub(crate) fn queue(&mut self, name: &QueueName) -> usize {
        if let Some(&queue) = self.queue_names.get(name) {
            return queue;
        }
        let queue = self.queues.len();
        self.queues.push(Queue::new(name.clone()));
        self.queue_names.insert(name.clone(), queue);
        queue
    }

    /// Whether a queue is paused, or a root that it lies under.
    pub(crate) fn is_paused(&self, queue: usize) -> bool {
        let queue = &self.queues[queue];
        let roots = queue.name.roots().filter_map(|root| self.queue_names.get(&root));
        queue.settings.pause.is_some() || { roots }.any(|&root| self.queues[root].settings.pause.is_some())
    }

    /// Adds a job that waits.
    pub(crate) fn add(&mut self, row: Row, now: Timestamp) {
        self.queues[row.queue].enqueued += 1;
        let (id, age) = (row.job.id, row.job.enqueued_at);
        let slot = self.rows.insert(Box::new(row));
        self.ids.insert(id, slot);
        self.by_age.insert((age, id), slot);
        self.enter(slot, now);
    }

    /// Removes a job with all that belongs to it.
    pub(crate) fn delete(&mut self, slot: usize) {
        self.leave(slot);
        self.free_key(slot);
        let row = self.rows.remove(slot);
        self.ids.remove(&row.job.id);
        for newcomer in &row.replaced {
            self.replaced.remove(newcomer);
        }
        self.by_age.remove(&(row.job.enqueued_at, row.job.id));
        self.queues[row.queue].deleted += 1;
        self.logs.forget(row.job.id);
    }

    /// Takes a job out of the indexes of its present state.
    pub(crate) fn leave(&mut self, slot: usize) {
        let row = &self.rows[slot];
        let queue = &mut self.queues[row.queue];
        queue.count_out(row.job.state);
        match row.job.state {
            State::Scheduled | State::Queued => queue.remove(row, slot),
            State::Running => {
                if let Some(until) = row.job.lease_until {
                    self.leases.remove(&(until, slot));
                }
                if let Some(token) = row.token {
                    let claim = token.claim(row.job.id);
                    if let Some(grant) = self.claims.get_mut(&claim) {
                        grant.running -= 1;
                        if grant.running == 0 {
                            self.over.push(claim);
                        }
                    }
                }
                if let Some(limit) = &row.job.options.limit
                    && let Some(running) = self.running.get_mut(&limit.key)
                {
                    *running -= 1;
                    if *running == 0 {
                        self.running.remove(&limit.key);
                    }
                }
            }
            State::Succeeded | State::Failed | State::Cancelled => {
                if let Some(expires_at) = row.job.expires_at {
                    self.expiry.remove(&(expires_at, slot));
                }
            }
        }
    }

    /// Puts a job into the indexes of its new state, and tells of it.
    pub(crate) fn enter(&mut self, slot: usize, now: Timestamp) {
        let row = &self.rows[slot];
        let queue = &mut self.queues[row.queue];
        queue.count_in(row.job.state);
        match row.job.state {
            State::Scheduled | State::Queued => queue.insert(row, slot, now),
            State::Running => {
                if let Some(until) = row.job.lease_until {
                    self.leases.insert((until, slot));
                }
                // None while the claim itself is under way: `grant` counts those jobs.
                let claim = row.token.map(|token| token.claim(row.job.id));
                if let Some(grant) = claim.and_then(|claim| self.claims.get_mut(&claim)) {
                    grant.running += 1;
                }
                if let Some(limit) = &row.job.options.limit {
                    *self.running.entry(limit.key.clone()).or_default() += 1;
                }
            }
            State::Succeeded | State::Failed | State::Cancelled => {
                if let Some(expires_at) = row.job.expires_at {
                    self.expiry.insert((expires_at, slot));
                }
            }
        }
        if self.watched {
            self.tell_change(slot);
        }
        self.free_key_by_state(slot);
    }

    /// Remembers what a claim was given, and forgets claims that are too old to be repeated.
    pub(crate) fn grant(&mut self, claim: ClaimId, jobs: Vec<JobId>, now: Timestamp) {
        for over in std::mem::take(&mut self.over) {
            if let Some(grant) = self.claims.get_mut(&over).filter(|grant| grant.running == 0) {
                grant.jobs = Vec::new();
            }
        }
        let running = jobs.len();
        if running > 0 {
            self.claims.insert(claim, Grant { jobs, running });
            self.granted.push_back((now, claim));
        }
        while let Some(&(at, oldest)) = self.granted.front()
            && now.since(at) > limits::CLAIM_MEMORY
        {
            self.granted.pop_front();
            if self.claims.get(&oldest).is_some_and(|grant| grant.running > 0) {
                self.granted.push_back((now, oldest));
            } else {
                self.claims.remove(&oldest);
            }
        }
    }

    /// How many jobs of this key run.
    pub(crate) fn running(&self, key: &LimitKey) -> u32 {
        self.running.get(key).copied().unwrap_or(0)
    }

    /// Who holds this key now.
    pub(crate) fn key_holder(&self, key: &UniqueKey, now: Timestamp) -> Option<JobId> {
        self.keys.get(key).filter(|holder| holder.until >= now).map(|holder| holder.job)
    }

    /// Gives a free key to a job.
    pub(crate) fn take_key(&mut self, unique: &Unique, job: JobId, now: Timestamp) {
        let until = match unique.scope {
            UniqueScope::For(period) => now.plus(period),
            UniqueScope::UntilClaimed | UniqueScope::UntilFinished => Timestamp::MAX,
        };
        self.keys.insert(unique.key.clone(), Holder { job, until });
    }

    /// The job that a newcomer of this id replaced, as far as that is remembered.
    pub(crate) fn replaced_by(&self, newcomer: JobId) -> Option<JobId> {
        self.replaced.get(&newcomer).copied()
    }

    /// Remembers which newcomer replaced a job, and forgets the oldest where there are too many.
    pub(crate) fn remember_replacement(&mut self, slot: usize, newcomer: JobId) {
        let row = &mut self.rows[slot];
        if row.replaced.len() >= limits::REPLACEMENTS {
            self.replaced.remove(&row.replaced.remove(0));
        }
        row.replaced.push(newcomer);
        self.replaced.insert(newcomer, row.job.id);
    }

    /// Tells that a job's queue has something to claim, now or soon.
    pub(crate) fn wake(&mut self, queue: usize) {
        if self.watched {
            self.woken.insert(queue);
        }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        if self.watched {
            self.events.push(event);
        }
    }

    /// What the operation that ends here has to tell; `Waiting` comes once per queue, and last, where a
    /// reader that fell behind still gets it.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        if self.changed.len() > ONE_BY_ONE {
            events.push(Event::Changes);
            self.changed.clear();
        }
        events.append(&mut self.changed);
        for queue in std::mem::take(&mut self.woken) {
            events.push(Event::Waiting { queue: self.queues[queue].name.clone() });
        }
        events
    }

    fn tell_change(&mut self, slot: usize) {
        let row = &self.rows[slot];
        let (job, state) = (row.job.id, row.job.state);
        if state.is_waiting() {
            self.woken.insert(row.queue);
        }
        if self.changed.len() <= ONE_BY_ONE {
            self.changed.push(Event::Changed { job, queue: row.job.queue.clone(), state });
        }
    }

    /// Frees the key that the job's new state ends the hold of.
    fn free_key_by_state(&mut self, slot: usize) {
        let job = &self.rows[slot].job;
        let over = match job.options.unique.as_ref().map(|unique| unique.scope) {
            // A job that ends without ever being claimed would keep its key for ever.
            Some(UniqueScope::UntilClaimed) => !job.state.is_waiting(),
            Some(UniqueScope::UntilFinished) => job.state.is_terminal(),
            Some(UniqueScope::For(_)) | None => false,
        };
        if over {
            self.free_key(slot);
        }
    }

    /// Frees the job's key, if it still holds it.
    fn free_key(&mut self, slot: usize) {
        let job = &self.rows[slot].job;
        if let Some(unique) = &job.options.unique
            && self.keys.get(&unique.key).is_some_and(|holder| holder.job == job.id)
        {
            self.keys.remove(&unique.key);
        }
    }
}
