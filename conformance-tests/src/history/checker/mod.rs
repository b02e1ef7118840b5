//! The offline judge of a history: pure, and independent of the store that made it.
//!
//! What concerns one job is judged by a `Judge`, job by job; what concerns several by a `World`.

mod accounts;
mod cancels;
mod counting;
mod feed;
mod fences;
mod hours;
mod keys;
mod leases;
mod limits;
mod lives;
mod logs;
mod model;
mod order;
mod pairing;
mod pauses;
mod register;
mod rules;
mod search;
mod stops;
mod ticks;
mod waiting;

use leasehold_core::JobId;
use leasehold_core::backend::Answer;

use self::model::Story;
pub(crate) use self::model::{Model, Op, Outcome};
pub use self::rules::Rules;
use self::search::Opinion;
use super::event::{Call, Entry, Event, Fate, Reply, What};
use super::story::short;
use super::verdict::{About, Finding, Invariant, Tally, Verdict};

/// Judges a history by the invariants I1 to I19, and each job once more by a search; see [`Invariant`].
///
/// A call that was answered took effect at some moment between its beginning and its answer; one of which nothing
/// is known at some moment after its beginning, or never; one that failed, never. Only what no choice of such
/// moments explains is found.
pub fn check(events: &[Event], rules: &Rules) -> Verdict {
    let mut model = Model::read(events);
    if rules.repeats_inside {
        model.take_repetitions_for_first_calls();
    }
    if rules.drained && !model.looked_last {
        model.harness.push("the jobs were not looked at when all was over".into());
    }
    let mut tally = tally(events, &model);
    let mut findings = Vec::new();
    let mut too_long = 0;
    for (job, story) in &model.stories {
        let mut judge = Judge { model: &model, story, job: *job, rules, findings: &mut findings };
        judge.accounts();
        judge.fences();
        judge.lives();
        judge.cancels();
        judge.waiting();
        judge.logs();
        match judge.second_opinion() {
            Opinion::TooLong => too_long += 1,
            Opinion::Given => tally.ordered += 1,
        }
    }
    let mut world = World { model: &model, rules, findings: &mut findings };
    world.nothing_else_pruned();
    world.order();
    world.keys();
    world.limits();
    world.feed();
    world.stops();
    world.ticks();
    let counted = world.counting();
    let mut verdict = Verdict::new(findings, tally, &model);
    verdict.vacuous = rules.least.missing(&tally);
    verdict.repeated_by = rules.repeated_by.clone();
    if too_long > 0 {
        verdict.unjudged.push(format!("the second opinion on {too_long} jobs, whose lives are too long"));
    }
    verdict.unjudged.extend(counted.err());
    verdict
}

/// One job and the rules that it is judged by.
struct Judge<'m, 'h> {
    model: &'m Model<'h>,
    story: &'m Story<'h>,
    job: JobId,
    rules: &'m Rules,
    findings: &'m mut Vec<Finding>,
}

impl Judge<'_, '_> {
    fn find(&mut self, invariant: Invariant, why: impl Into<String>, ops: impl IntoIterator<Item = usize>) {
        let mut finding = Finding::new(invariant, About::Job(self.job), why, ops);
        finding.facts = self.model.leases_in(self.story, &finding.ops);
        self.findings.push(finding);
    }
}

/// All jobs and the rules that they are judged by together.
struct World<'m, 'h> {
    model: &'m Model<'h>,
    rules: &'m Rules,
    findings: &'m mut Vec<Finding>,
}

impl World<'_, '_> {
    fn find(
        &mut self,
        invariant: Invariant,
        about: About,
        why: impl Into<String>,
        ops: impl IntoIterator<Item = usize>,
    ) {
        self.findings.push(Finding::new(invariant, about, why, ops));
    }
}

impl Finding {
    fn new(
        invariant: Invariant,
        about: About,
        why: impl Into<String>,
        ops: impl IntoIterator<Item = usize>,
    ) -> Self {
        let mut ops: Vec<usize> = ops.into_iter().collect();
        ops.sort_unstable();
        ops.dedup();
        Self { invariant, about, why: why.into(), facts: Vec::new(), ops }
    }
}

impl Model<'_> {
    /// What is known of the leases that these calls are about.
    fn leases_in(&self, story: &Story<'_>, ops: &[usize]) -> Vec<String> {
        let concerned = story.grants.iter().filter(|grant| {
            let written = story.under(grant).any(|write| ops.contains(&write.op));
            written || grant.ops.iter().any(|op| ops.contains(op))
        });
        let lease = |grant: &model::Grant<'_>| {
            let hour = |at| self.hours.in_millis(at);
            let (from, to) = (self.hours.earliest(grant.i), self.earliest_end(story, grant, u64::MAX));
            let (token, attempt) = (short(grant.given.token), grant.given.job.attempt);
            let clock = if self.hours.are_the_stores() { "the store's clock" } else { "the machine's clock" };
            let (from, to) = (hour(from), hour(to));
            format!("lease {token}, attempt {attempt}: by {clock} from {from} ms, and to {to} ms at least")
        };
        concerned.map(lease).collect()
    }
}

fn tally(events: &[Event], model: &Model<'_>) -> Tally {
    let mut tally = Tally { events: events.len(), calls: model.ops.len(), ..Tally::default() };
    for op in &model.ops {
        count(op, &mut tally);
    }
    let first_fault = events.iter().find(|event| matches!(event.what, What::Fault(_))).map(|event| event.t);
    let broken = first_fault.map_or(u64::MAX, |t| t)..model.last_fault;
    for story in model.stories.values() {
        let limited = story.puts.iter().any(|put| put.put.limit.is_some());
        tally.jobs += usize::from(!story.puts.is_empty());
        tally.grants += story.grants.len();
        tally.limited += if limited { story.grants.len() } else { 0 };
        tally.grants_under_faults += story.grants.iter().filter(|grant| broken.contains(&grant.i)).count();
        tally.starts += story.runs.len();
        tally.ended += usize::from(story.last.is_some_and(|last| last.state.is_terminal()));
    }
    tally.faults = events.iter().filter(|event| matches!(event.what, What::Fault(_))).count();
    tally.told = model.told.len();
    tally.stops = model.stopped.len();
    tally
}

fn count(op: &Op<'_>, tally: &mut Tally) {
    match (op.outcome, op.call) {
        (Outcome::Ok(Reply::Enqueue(answers)), _) => {
            tally.enqueued += answers.len();
            tally.refused_keys += answers.iter().filter(|(_, entry)| *entry == Entry::Held).count();
        }
        (Outcome::Ok(Reply::Recover(answers)), _) => {
            tally.losses += answers.iter().filter(|answer| **answer == Answer::Applied).count();
        }
        (Outcome::Ok(Reply::Settle(answers)), _) => {
            tally.refused += answers.iter().filter(|answer| **answer == Answer::Lost).count();
        }
        (Outcome::Ok(Reply::Amend(answers)), Call::Amend(change)) if change.action.cancels() => {
            let done = |fate: &Fate| matches!(fate, Fate::Applied | Fate::Requested);
            tally.cancels += answers.iter().filter(|(_, fate)| done(fate)).count();
        }
        (Outcome::Ok(Reply::Count(_)), _) => tally.counts += 1,
        (Outcome::Ok(_), Call::SetQueue(set)) => tally.pauses += usize::from(set.paused),
        (Outcome::Ok(_), Call::PutRegister(_)) => tally.plans += 1,
        (Outcome::Unknown, _) => tally.unknown += 1,
        (Outcome::Failed, _) => tally.failed += 1,
        _ => {}
    }
}
