use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use leasehold_core::backend::{Claim, Claimed};
use leasehold_core::{JobId, Kind, LeasedJob, Reason, State, Timestamp, limits};

use crate::schema::{Demand, Head, Place, Tables};

pub(crate) fn claim(tables: &mut Tables, now: Timestamp, request: &Claim) -> Claimed {
    if let Some(jobs) = repeated(tables, request) {
        return Claimed { jobs, ..Claimed::default() };
    }
    let queues = open_queues(tables, now, request);
    let jobs = Taking { tables, now, request, queues: &queues, jobs: Vec::new(), full: Vec::new() }.all();
    tables.grant(request.id, jobs.iter().map(|leased| leased.job.id).collect(), now);
    let mut claimed = Claimed { jobs, ..Claimed::default() };
    if claimed.jobs.len() < request.limit {
        let due = queues.iter().filter_map(|&queue| tables.queues[queue].next_due()).min();
        claimed.next_due = due.and_then(|due| Claimed::until(due, now));
    }
    claimed
}

/// What this very claim was given before and still runs; none if it is the first of its id.
fn repeated(tables: &Tables, request: &Claim) -> Option<Vec<LeasedJob>> {
    let jobs: Vec<JobId> = tables.claims.get(&request.id)?.jobs.clone();
    let still_held = |id: JobId| {
        let row = &tables.rows[tables.slot(id)?];
        let token = request.id.token(id);
        let lease = row.job.options.lease.unwrap_or(request.lease);
        row.is_held_by(token).then(|| LeasedJob::new(row.job.clone(), token, lease))
    };
    Some(jobs.into_iter().filter_map(still_held).collect())
}

/// The asked queues that give out anything.
fn open_queues(tables: &mut Tables, now: Timestamp, request: &Claim) -> BTreeSet<usize> {
    let known = request.queues.iter().filter_map(|name| tables.queue_names.get(name).copied());
    let gives =
        |&queue: &usize| !tables.is_paused(queue) && tables.queues[queue].settings.gives(request.rated);
    let open: BTreeSet<usize> = known.filter(gives).collect();
    for &queue in &open {
        tables.queues[queue].look(now);
    }
    open
}

/// A claim under way.
struct Taking<'a> {
    tables: &'a mut Tables,
    now: Timestamp,
    request: &'a Claim,
    queues: &'a BTreeSet<usize>,
    jobs: Vec<LeasedJob>,
    /// The groups that it came by whose jobs end rather than wait for room.
    full: Vec<Full>,
}

/// A group of jobs without room, and its lane.
struct Full {
    queue: usize,
    priority: i16,
    kind: Kind,
    demand: Demand,
}

/// A lane that a claim takes from.
struct Source {
    queue: usize,
    kind: Kind,
    /// The last head that was looked at. Limits only fill up while a claim goes on, so a group that was
    /// passed over once would not fit later either.
    passed: Option<Head>,
}

impl Taking<'_> {
    /// Takes the best jobs, in order: by priority, and within a priority by merging the lanes.
    fn all(mut self) -> Vec<LeasedJob> {
        let mut last = None;
        while self.left() > 0 {
            last =
                self.queues.iter().filter_map(|&queue| self.tables.queues[queue].next_priority(last)).max();
            let wanted = last.filter(|&priority| self.request.min_priority.is_none_or(|min| priority >= min));
            let Some(priority) = wanted else { break };
            self.of_priority(priority);
        }
        self.end_without_room();
        self.jobs
    }

    /// Ends those jobs without room that stand before the last one that was taken, or all if the claim has room left.
    fn end_without_room(&mut self) {
        let last = self.jobs.last().filter(|_| self.left() == 0);
        let last = last.map(|last| (Reverse(last.job.options.priority), last.job.due, last.job.id));
        let mut slots = Vec::new();
        for Full { queue, priority, kind, demand } in &self.full {
            let Some(lane) = self.tables.queues[*queue].lane(*priority, kind) else { continue };
            let is_met = |place: &&Place| {
                place.due <= self.now
                    && last.is_none_or(|last| (Reverse(*priority), place.due, place.id) < last)
            };
            slots.extend(lane.group(demand).take_while(is_met).map(|place| place.slot));
        }
        for slot in slots.into_iter().take(limits::ENDED_BY_A_CLAIM) {
            self.tables.leave(slot);
            let job = &mut self.tables.rows[slot].job;
            job.end(State::Cancelled, Some(Reason::LimitReached), self.now);
            self.tables.enter(slot, self.now);
        }
    }

    fn of_priority(&mut self, priority: i16) {
        let mut sources = Vec::new();
        for &queue in self.queues {
            let kinds = self.tables.queues[queue].kinds(priority, &self.request.kinds);
            sources.extend(kinds.into_iter().map(|kind| Source { queue, kind, passed: None }));
        }
        // The best job of each source; the best of these is taken, and with it those of its group that stand
        // before the next best.
        let mut best: BinaryHeap<Reverse<(Place, usize)>> = BinaryHeap::new();
        for (i, source) in sources.iter_mut().enumerate() {
            best.extend(self.next(priority, source).map(|place| Reverse((place, i))));
        }
        while self.left() > 0
            && let Some(Reverse((_, i))) = best.pop()
        {
            let end = best.peek().map(|Reverse((place, _))| *place);
            self.take(priority, &sources[i], end);
            best.extend(self.next(priority, &mut sources[i]).map(|place| Reverse((place, i))));
        }
        for source in &sources {
            self.tables.queues[source.queue].tidy(priority, &source.kind);
        }
    }

    /// Goes on to the next group of a source that this claim may take from.
    fn next(&mut self, priority: i16, source: &mut Source) -> Option<Place> {
        let lane = self.tables.queues[source.queue].lane(priority, &source.kind)?;
        let mut full = Vec::new();
        let fits = |demand: &Demand| {
            let (suits, has_room) = (self.request.tags.takes(&demand.tags), self.room(demand) > 0);
            if suits && !has_room && demand.ends {
                full.push(demand.clone());
            }
            suits && has_room
        };
        source.passed = lane.next(source.passed.as_ref(), self.now, fits);
        let group = |demand| Full { queue: source.queue, priority, kind: source.kind.clone(), demand };
        self.full.extend(full.into_iter().map(group));
        source.passed.as_ref().map(|(place, _)| *place)
    }

    /// Takes from the group that a source stands at, unless another one with its limit key has filled it up.
    fn take(&mut self, priority: i16, source: &Source, end: Option<Place>) {
        let Some(head) = &source.passed else { return };
        let most = self.left().min(self.room(&head.1));
        if most == 0 && head.1.ends {
            let (queue, kind, demand) = (source.queue, source.kind.clone(), head.1.clone());
            self.full.push(Full { queue, priority, kind, demand });
        }
        let lane = self.tables.queues[source.queue].lane_mut(priority, &source.kind);
        let slots = lane.map(|lane| lane.take(head, end, most, self.now)).unwrap_or_default();
        self.jobs.reserve(slots.len());
        for slot in slots {
            let job = self.lease(slot);
            self.jobs.push(job);
        }
    }

    /// Puts a job that was taken out of its lane under a lease.
    fn lease(&mut self, slot: usize) -> LeasedJob {
        let row = &mut self.tables.rows[slot];
        self.tables.queues[row.queue].count_out(row.job.state);
        let token = self.request.id.token(row.job.id);
        let lease = row.job.options.lease.unwrap_or(self.request.lease);
        row.token = Some(token);
        row.logged = 0;
        row.job.start(self.request.worker, lease, self.now);
        let leased = LeasedJob::new(row.job.clone(), token, lease);
        self.tables.enter(slot, self.now);
        leased
    }

    fn left(&self) -> usize {
        self.request.limit - self.jobs.len()
    }

    /// How many more jobs with this demand may run.
    fn room(&self, demand: &Demand) -> usize {
        match &demand.limit {
            Some((key, max)) => max.saturating_sub(self.tables.running(key)) as usize,
            None => usize::MAX,
        }
    }
}
