use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::backend::{KindRule, QueueCounts, QueueSettings};
use leasehold_core::{JobId, Kind, QueueName, State, Timestamp};

use super::lane::{Demand, Lane, Place};
use crate::record::Row;

/// The waiting jobs of one queue and priority, by kind.
pub(crate) type Level = BTreeMap<Kind, Lane>;

/// A queue: its settings, its kept counts and its waiting jobs.
pub(crate) struct Queue {
    pub(crate) name: QueueName,
    pub(crate) settings: QueueSettings,
    pub(crate) changed_at: Option<Timestamp>,
    /// Jobs ever taken in or moved in.
    pub(crate) enqueued: u64,
    /// Jobs deleted, pruned or moved out.
    pub(crate) deleted: u64,
    /// Jobs by state, where all that wait count as `Queued`.
    states: [u64; State::ALL.len()],
    /// The highest priority first.
    levels: BTreeMap<Reverse<i16>, Level>,
    /// The waiting jobs that were not due at `looked`: what makes `Scheduled` a kept count too.
    later: BTreeSet<(Timestamp, JobId)>,
    looked: Timestamp,
}

impl Queue {
    pub(crate) fn new(name: QueueName) -> Self {
        Self {
            name,
            settings: QueueSettings::default(),
            changed_at: None,
            enqueued: 0,
            deleted: 0,
            states: [0; State::ALL.len()],
            levels: BTreeMap::new(),
            later: BTreeSet::new(),
            looked: Timestamp::default(),
        }
    }

    /// Counts a job that comes into `state`.
    pub(crate) fn count_in(&mut self, state: State) {
        self.states[place_of(state)] += 1;
    }

    /// Counts a job that leaves `state`.
    pub(crate) fn count_out(&mut self, state: State) {
        self.states[place_of(state)] -= 1;
    }

    pub(crate) fn counts(&mut self, now: Timestamp) -> QueueCounts {
        self.look(now);
        let mut counts = QueueCounts::empty(self.name.clone());
        let scheduled = self.later.len() as u64;
        for state in State::ALL {
            let jobs = match state {
                State::Scheduled => scheduled,
                State::Queued => self.states[place_of(state)] - scheduled,
                _ => self.states[place_of(state)],
            };
            if jobs > 0 {
                counts.states.insert(state, jobs);
            }
        }
        counts.enqueued = self.enqueued;
        counts.deleted = self.deleted;
        let lanes = self.levels.values().flat_map(Level::values);
        counts.oldest_due = lanes.filter_map(Lane::first_due).min().filter(|due| *due <= now);
        counts
    }

    /// Lets a job wait.
    pub(crate) fn insert(&mut self, row: &Row, slot: usize, now: Timestamp) {
        self.look(now);
        let job = &row.job;
        if job.due > now {
            self.later.insert((job.due, job.id));
        }
        let level = self.levels.entry(Reverse(job.options.priority)).or_default();
        let place = Place { due: job.due, id: job.id, slot };
        // A lane's key is cloned only when the lane is new.
        match level.get_mut(&job.kind) {
            Some(lane) => lane.insert(Demand::of(&job.options), place),
            None => level.entry(job.kind.clone()).or_default().insert(Demand::of(&job.options), place),
        }
    }

    /// Takes a waiting job out.
    pub(crate) fn remove(&mut self, row: &Row, slot: usize) {
        let job = &row.job;
        if job.due > self.looked {
            self.later.remove(&(job.due, job.id));
        }
        let priority = job.options.priority;
        if let Some(lane) = self.lane_mut(priority, &job.kind) {
            lane.remove(Demand::of(&job.options), Place { due: job.due, id: job.id, slot });
        }
        self.tidy(priority, &job.kind);
    }

    /// The highest priority below `above` of which jobs wait.
    pub(crate) fn next_priority(&self, above: Option<i16>) -> Option<i16> {
        match above {
            None => self.levels.keys().next(),
            Some(above) => self
                .levels
                .range((std::ops::Bound::Excluded(Reverse(above)), std::ops::Bound::Unbounded))
                .next()
                .map(|(key, _)| key),
        }
        .map(|key| key.0)
    }

    /// The kinds of which jobs of this priority wait and that the rule takes.
    pub(crate) fn kinds(&self, priority: i16, rule: &KindRule) -> Vec<Kind> {
        let Some(level) = self.levels.get(&Reverse(priority)) else { return Vec::new() };
        match rule {
            KindRule::Only(kinds) => kinds.iter().filter(|kind| level.contains_key(*kind)).cloned().collect(),
            rule => level.keys().filter(|kind| rule.takes(kind)).cloned().collect(),
        }
    }

    pub(crate) fn lane(&self, priority: i16, kind: &Kind) -> Option<&Lane> {
        self.levels.get(&Reverse(priority))?.get(kind)
    }

    pub(crate) fn lane_mut(&mut self, priority: i16, kind: &Kind) -> Option<&mut Lane> {
        self.levels.get_mut(&Reverse(priority))?.get_mut(kind)
    }

    /// Forgets a lane and a level that became empty, so that no claim walks them.
    pub(crate) fn tidy(&mut self, priority: i16, kind: &Kind) {
        let Some(level) = self.levels.get_mut(&Reverse(priority)) else { return };
        if level.get(kind).is_some_and(Lane::is_empty) {
            level.remove(kind);
        }
        if level.is_empty() {
            self.levels.remove(&Reverse(priority));
        }
    }

    /// When the next of the jobs that are not due becomes due, as of the last look.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Brings `later` up to `now`. Each job is walked once, when its time comes; only a clock that went
    /// backwards makes the store look at jobs again.
    pub(crate) fn look(&mut self, now: Timestamp) {
        while self.later.first().is_some_and(|(due, _)| *due <= now) {
            self.later.pop_first();
        }
        if now < self.looked {
            let lanes = self.levels.values().flat_map(Level::values);
            self.later.extend(lanes.flat_map(|lane| lane.later(now)).map(|place| (place.due, place.id)));
        }
        self.looked = now;
    }
}

fn place_of(state: State) -> usize {
    if state.is_waiting() { State::Queued as usize } else { state as usize }
}
