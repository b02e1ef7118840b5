//! I10: jobs are given out in their order, and overtake each other no further than racing claims explain.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::{ClaimId, JobId, QueueName, Timestamp, WorkerId};

use super::World;
use super::model::{Model, Outcome, Story};
use super::waiting::Wait;
use crate::history::event::{Asked, Call, Granted, Put, Reply, Seen};
use crate::history::verdict::{About, Invariant};

/// Where a job stands: by priority, then by due time, then by id.
type Standing = (Reverse<i16>, Timestamp, JobId);

fn standing(job: &Seen) -> Standing {
    (Reverse(job.priority), job.due, job.job)
}

/// A claim that was answered, and for the first time.
struct Answered<'h> {
    op: usize,
    i: u64,
    c: u64,
    asked: &'h Asked,
    jobs: &'h [Granted],
}

/// A job that waits, as its next grant shows it.
struct Waiting<'m, 'h> {
    story: &'m Story<'h>,
    wait: Wait<'m, 'h>,
    put: &'h Put,
    job: &'h Seen,
    until: u64,
    overtaken: usize,
    /// How much of it racing claims have been found to explain: with time it can only be more.
    explained: usize,
}

/// The jobs that wait at one moment of a sweep, by queue and standing, with their index.
type Lines<'m> = BTreeMap<&'m QueueName, BTreeMap<Standing, usize>>;

impl World<'_, '_> {
    pub(super) fn order(&mut self) {
        let claims = answered(self.model);
        if !self.rules.repeats_inside {
            for claim in &claims {
                self.answer_is_in_order(claim);
            }
        }
        self.nobody_is_overtaken(&claims);
    }

    /// I10: the jobs of one answer stand in it as they stand in their queues.
    fn answer_is_in_order(&mut self, claim: &Answered<'_>) {
        let unchanged = |given: &&Granted| !self.model.stories[&given.job.job].is_amended();
        let jobs: Vec<&Seen> = claim.jobs.iter().filter(unchanged).map(|given| &given.job).collect();
        for pair in jobs.windows(2) {
            if standing(pair[0]) > standing(pair[1]) {
                let why = format!("a claim gave it after job {}, which it stands before", pair[0].job);
                self.find(Invariant::I10, About::Job(pair[1].job), why, [claim.op]);
            }
        }
    }

    /// I10: a job that waits is passed over by no claim that is alone, and by no more jobs than the claims that
    /// are made meanwhile can hold.
    fn nobody_is_overtaken(&mut self, claims: &[Answered<'_>]) {
        let (alone, races, told) = (claims_alone(self.model), Races::read(self.model), Told::read(claims));
        let mut waiting = all_waiting(self.model);
        let mut coming: Vec<usize> = (0..waiting.len()).collect();
        let mut going = coming.clone();
        coming.sort_by_key(|&at| Reverse(waiting[at].wait.from));
        going.sort_by_key(|&at| Reverse(waiting[at].until));
        let mut lines = Lines::new();
        for claim in claims {
            while let Some(at) = coming.pop_if(|at| waiting[*at].wait.from < claim.c) {
                lines.entry(&waiting[at].job.queue).or_default().insert(standing(waiting[at].job), at);
            }
            while let Some(at) = going.pop_if(|at| waiting[*at].until <= claim.c) {
                if let Some(line) = lines.get_mut(&waiting[at].job.queue) {
                    line.remove(&standing(waiting[at].job));
                }
            }
            for at in passed_over(self.model, claim, &told, &lines, &waiting) {
                let passed = &mut waiting[at];
                let by =
                    claim.jobs.iter().filter(|given| standing(&given.job) > standing(passed.job)).count();
                passed.overtaken += by;
                let (overtaken, alone) = (passed.overtaken, alone.contains(&claim.op));
                // Whatever else is under way, the claim itself can hold so many.
                if !alone && overtaken < claim.asked.limit.max(passed.explained + 1) {
                    continue;
                }
                passed.explained = races.most_overtaking(passed.wait.from, claim.c);
                if alone || overtaken > passed.explained {
                    let others = if alone { 0 } else { passed.explained };
                    let why = format!(
                        "it waited while {overtaken} jobs that stand after it were given out, and racing claims \
                         explain {others}"
                    );
                    let next = passed.wait.next.map(|next| next.ops.clone()).unwrap_or_default();
                    let ops = next.into_iter().chain([passed.wait.op, claim.op]);
                    self.find(Invariant::I10, About::Job(passed.job.job), why, ops);
                }
            }
        }
    }
}

/// The answers to claims, in the order in which they came; of a repeated claim none, for its jobs may have changed.
fn answered<'h>(model: &Model<'h>) -> Vec<Answered<'h>> {
    let mut times: BTreeMap<ClaimId, usize> = BTreeMap::new();
    for op in &model.ops {
        if let Call::Claim(asked) = op.call {
            *times.entry(asked.claim).or_default() += 1;
        }
    }
    let answered = model.ops.iter().enumerate().filter_map(|(index, op)| match (op.call, op.outcome) {
        (Call::Claim(asked), Outcome::Ok(Reply::Claim(jobs))) if times[&asked.claim] == 1 => {
            Some(Answered { op: index, i: op.i, c: op.c, asked, jobs })
        }
        _ => None,
    });
    let mut answered: Vec<Answered<'_>> = answered.filter(|claim| !claim.jobs.is_empty()).collect();
    answered.sort_by_key(|claim| claim.c);
    answered
}

/// The claims during which no other was under way.
fn claims_alone(model: &Model<'_>) -> BTreeSet<usize> {
    let claims = model.ops.iter().enumerate().filter(|(_, op)| matches!(op.call, Call::Claim(_)));
    let mut claims: Vec<_> = claims.map(|(index, op)| (op.i, op.c, index)).collect();
    claims.sort_unstable();
    let mut alone = BTreeSet::new();
    let mut busy_until = 0;
    for (at, (i, c, index)) in claims.iter().enumerate() {
        let next = claims.get(at + 1).map_or(u64::MAX, |next| next.0);
        if busy_until < *i && *c < next {
            alone.insert(*index);
        }
        busy_until = busy_until.max(*c);
    }
    alone
}

/// The jobs that nobody changed, that no limit holds back, and that wait to be given out once more.
fn all_waiting<'m, 'h>(model: &'m Model<'h>) -> Vec<Waiting<'m, 'h>> {
    let mut all = Vec::new();
    for story in model.stories.values() {
        let Some(put) = story.taken_in() else { continue };
        if story.is_amended() || put.limit.is_some() {
            continue;
        }
        for wait in story.waits().into_iter().filter(Wait::is_whole) {
            let Some(next) = wait.next else { continue };
            let (job, until) = (&next.given.job, next.i);
            all.push(Waiting { story, wait, put, job, until, overtaken: 0, explained: 0 });
        }
    }
    all
}

/// Those that certainly waited all the time that a claim took, that it asked for and was not given, though it was
/// given one that stands after them.
fn passed_over(
    model: &Model<'_>,
    claim: &Answered<'_>,
    told: &Told,
    lines: &Lines<'_>,
    waiting: &[Waiting<'_, '_>],
) -> Vec<usize> {
    let Some(last) = claim.jobs.iter().max_by_key(|given| standing(&given.job)) else { return Vec::new() };
    let hour = told.certainly_at(model, claim);
    let mut passed = Vec::new();
    for queue in &claim.asked.queues {
        let Some(line) = lines.get(queue) else { continue };
        let before = line.range(..standing(&last.job)).map(|(_, at)| *at);
        passed.extend(before.filter(|&at| {
            let one = &waiting[at];
            one.wait.from < claim.i
                && hour.is_some_and(|hour| one.job.due <= hour)
                && asks_for(claim.asked, one.job, one.put)
                && !one.is_busy(claim)
                && !model.may_be_paused(queue, claim.i, claim.c)
        }));
    }
    passed
}

/// The hours that answers to claims told, each with the moment of the answer, in that order; and none is before the one before.
struct Told(Vec<(u64, Timestamp)>);

impl Told {
    fn read(claims: &[Answered<'_>]) -> Self {
        let told = claims.iter().filter_map(|claim| Some((claim.c, started(claim)?)));
        let latest = told.scan(Timestamp::default(), |latest, (c, hour)| {
            *latest = hour.max(*latest);
            Some((c, *latest))
        });
        Self(latest.collect())
    }

    /// An hour that was reached when a claim looked for jobs. It tells when it gave them out, which a store may read off its
    /// clock once more after that: certain is what was told before it began as well, but where nothing but a call moves the clock.
    fn certainly_at(&self, model: &Model<'_>, claim: &Answered<'_>) -> Option<Timestamp> {
        let own = started(claim)?;
        if model.hours.is_manual() {
            return Some(own);
        }
        let before = self.0.partition_point(|(c, _)| *c <= claim.i);
        before.checked_sub(1).map(|last| self.0[last].1.min(own))
    }
}

fn started(claim: &Answered<'_>) -> Option<Timestamp> {
    claim.jobs.iter().filter_map(|given| given.started).min()
}

fn asks_for(asked: &Asked, job: &Seen, put: &Put) -> bool {
    asked.kinds.takes(&job.kind)
        && asked.tags.takes(&put.tags)
        && asked.min_priority.is_none_or(|least| job.priority >= least)
}

impl Waiting<'_, '_> {
    /// Whether another call for the job was under way during a claim, and may have been in its way.
    fn is_busy(&self, claim: &Answered<'_>) -> bool {
        let overlaps = |i: u64, c: u64| i < claim.c && claim.i < c;
        self.story.writes.iter().any(|write| overlaps(write.i, write.c))
            || self.story.puts.iter().any(|put| overlaps(put.i, put.c))
    }
}

/// The claims that raced each other, in the order in which they began.
#[derive(Default)]
struct Races {
    known: Vec<Racer>,
    /// How long the longest of them was under way.
    longest: u64,
    /// Those of which nothing is known: they may have taken effect at any time since.
    unknown: Vec<Racer>,
}

struct Racer {
    i: u64,
    c: u64,
    worker: WorkerId,
    limit: usize,
}

impl Races {
    fn read(model: &Model<'_>) -> Self {
        let mut races = Self::default();
        for op in &model.ops {
            let Call::Claim(asked) = op.call else { continue };
            let racer = Racer { i: op.i, c: op.c, worker: asked.worker, limit: asked.limit };
            match op.outcome {
                Outcome::Unknown => races.unknown.push(racer),
                Outcome::Ok(_) | Outcome::Failed => races.known.push(racer),
            }
        }
        races.known.sort_by_key(|racer| racer.i);
        races.unknown.sort_by_key(|racer| racer.i);
        races.longest = races.known.iter().map(|racer| racer.c - racer.i).max().unwrap_or(0);
        races
    }

    /// How many jobs the claims that were made between these moments can have held at once, but for one: as many as
    /// each claimer's largest claim, and all that the claims may have been given of which nothing is known.
    fn most_overtaking(&self, from: u64, to: u64) -> usize {
        let begun = |racers: &[Racer]| racers.partition_point(|racer| racer.i < to);
        let ended = self.known.partition_point(|racer| racer.i.saturating_add(self.longest) <= from);
        let unknown = &self.unknown[..begun(&self.unknown)];
        let known = &self.known[ended..begun(&self.known).max(ended)];
        let mut largest: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for racer in known.iter().filter(|racer| from < racer.c).chain(unknown) {
            let most = largest.entry(racer.worker).or_default();
            *most = racer.limit.max(*most);
        }
        let lost: usize = unknown.iter().map(|racer| racer.limit).sum();
        (largest.values().sum::<usize>() + lost).saturating_sub(1)
    }
}
