//! The offline judge of a history: pure, and independent of the store that made it.

mod accounts;
mod fences;
mod hours;
mod lives;
mod model;

use leasehold_core::JobId;

use self::model::{Model, Story};
pub(crate) use self::model::{Op, Outcome};
use super::event::{Call, Event, Reply, What};
use super::verdict::{Finding, Invariant, Tally, Verdict};
use leasehold_core::backend::Answer;

/// What a run was meant to be, beyond what holds for every one.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Rules {
    /// Whether the run went on until every job had ended, and the jobs were looked at then.
    pub drained: bool,
    /// A run with fewer grants proves nothing.
    pub grants: usize,
    /// A run in which fewer leases were lost and recovered proves nothing.
    pub losses: usize,
    /// A run with fewer calls of which nothing is known proves nothing.
    pub unknown: usize,
    /// Whether something between the recorder and the store may have made a call twice, such as a driver: then a
    /// call may be told that it was applied already, by itself.
    pub repeats_inside: bool,
}

impl Rules {
    /// A run that ended when every job had, with at least so many grants.
    pub fn drained(grants: usize) -> Self {
        Self { drained: true, grants, ..Self::default() }
    }

    /// Asks for at least so many leases that were lost.
    #[must_use]
    pub fn losses(mut self, losses: usize) -> Self {
        self.losses = losses;
        self
    }

    /// Asks for at least so many calls of which nothing is known.
    #[must_use]
    pub fn unknown(mut self, unknown: usize) -> Self {
        self.unknown = unknown;
        self
    }

    /// Lets calls be repeated between the recorder and the store.
    #[must_use]
    pub fn repeats_inside(mut self) -> Self {
        self.repeats_inside = true;
        self
    }
}

/// Judges a history by the invariants I1 to I9; see [`Invariant`].
///
/// A call that was answered took effect at some moment between its beginning and its answer; one of which nothing
/// is known at some moment after its beginning, or never; one that failed, never. Only what no choice of such
/// moments explains is found.
pub fn check(events: &[Event], rules: &Rules) -> Verdict {
    let mut model = Model::read(events);
    if rules.repeats_inside {
        model.take_repetitions_for_first_calls();
    }
    let tally = tally(events, &model);
    let mut findings = Vec::new();
    for (job, story) in &model.stories {
        let mut judge = Judge { model: &model, story, job: *job, rules, findings: &mut findings };
        judge.accounts();
        judge.fences();
        judge.lives();
    }
    let mut harness = model.harness.clone();
    if rules.drained && !model.looked_last {
        harness.push("the jobs were not looked at when all was over".into());
    }
    let vacuous = vacuous(&tally, rules);
    Verdict::new(findings, harness, vacuous, tally, &model.ops)
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
        let mut ops: Vec<usize> = ops.into_iter().collect();
        ops.sort_unstable();
        ops.dedup();
        self.findings.push(Finding { invariant, job: self.job, why: why.into(), ops });
    }
}

fn tally(events: &[Event], model: &Model<'_>) -> Tally {
    let mut tally = Tally { events: events.len(), calls: model.ops.len(), ..Tally::default() };
    for op in &model.ops {
        match (op.outcome, op.call) {
            (Outcome::Ok(Reply::Enqueue(answers)), _) => tally.enqueued += answers.len(),
            (Outcome::Ok(Reply::Recover(answers)), Call::Recover(_)) => {
                tally.losses += answers.iter().filter(|answer| **answer == Answer::Applied).count();
            }
            (Outcome::Ok(Reply::Settle(answers)), _) => {
                tally.refused += answers.iter().filter(|answer| **answer == Answer::Lost).count();
            }
            (Outcome::Unknown, _) => tally.unknown += 1,
            (Outcome::Failed, _) => tally.failed += 1,
            _ => {}
        }
    }
    for story in model.stories.values() {
        tally.jobs += usize::from(!story.puts.is_empty());
        tally.grants += story.grants.len();
        tally.starts += story.runs.len();
        tally.ended += usize::from(story.last.is_some_and(|last| last.state.is_terminal()));
    }
    tally.faults = events.iter().filter(|event| matches!(event.what, What::Fault(_))).count();
    tally
}

fn vacuous(tally: &Tally, rules: &Rules) -> Vec<String> {
    let demands = [
        ("grants", tally.grants, rules.grants),
        ("lost leases", tally.losses, rules.losses),
        ("calls of which nothing is known", tally.unknown, rules.unknown),
    ];
    let too_few = demands.into_iter().filter(|(_, had, wanted)| had < wanted);
    too_few.map(|(what, had, wanted)| format!("{had} {what}, and at least {wanted} were wanted")).collect()
}
