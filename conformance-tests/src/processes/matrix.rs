//! The crash matrix: every step of a client against every point at which its process may end.

use serde::{Deserialize, Serialize};

use crate::harness::Harness;

/// What a client is about to do when its process ends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Step {
    /// It enqueues a job.
    Enqueue,
    /// It enqueues several jobs in one call.
    EnqueueMany,
    /// It claims several jobs.
    Claim,
    /// It renews several leases.
    Renew,
    /// It settles several jobs as succeeded.
    Succeed,
    /// It settles several jobs for another try.
    Retry,
    /// It takes back several jobs whose leases ran out.
    Recover,
    /// It makes the job of a schedule's tick, and moves the schedule on.
    Tick,
    /// It writes lines to a job's log.
    AppendLogs,
}

impl Step {
    /// Every step.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;
}

/// What may have happened to the store by the time that a process ends at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// All of it.
    All,
    /// Any part of it.
    Some,
}

/// A point at which a process may end: a name that stands in a `fail_point!` of the core.
#[derive(Debug, Clone, Copy)]
pub struct CutPoint {
    /// Its name: `what::when`.
    pub name: &'static str,
    /// What may have happened by then.
    pub effect: Effect,
    /// The steps that come by.
    pub steps: &'static [Step],
    /// Whether other clients wait there until it goes on or is gone.
    pub others_wait: bool,
}

impl CutPoint {
    /// The point of this name, by which these steps come.
    pub const fn new(name: &'static str, effect: Effect, steps: &'static [Step]) -> Self {
        Self { name, effect, steps, others_wait: false }
    }

    /// The same, and whoever is there holds others up.
    #[must_use]
    pub const fn others_wait(self) -> Self {
        Self { others_wait: true, ..self }
    }
}

/// The points that every backend has. Those within a backend are told by
/// [`Harness::cut_points`](crate::Harness::cut_points).
const STEP_POINTS: &[CutPoint] = &[
    CutPoint::new("call::before_send", Effect::None, Step::ALL),
    CutPoint::new("tick::acted", Effect::All, &[Step::Tick]),
    CutPoint::new("call::done", Effect::All, Step::ALL),
];

/// Where a worker may end, and what it was about to do then.
pub(crate) const WORKER_POINTS: &[(&str, &str)] = &[
    ("recover::before_send", "it had read which leases ran out, and not yet taken them back"),
    ("claim::acted", "it had been given jobs, and done nothing with them"),
    ("handler::acted", "its handler had half done its work"),
    ("settle::before_send", "its handler was done, and the store not told"),
];

/// Where a scheduler may end or fall asleep, and what it was about to do then.
pub(crate) const SCHEDULER_POINTS: &[(&str, &str)] = &[
    ("schedule::decided", "it had written down which ticks fire, and enqueued none"),
    ("schedule::enqueued", "it had enqueued them, and not written that it had"),
];

/// The points by which a step comes on the backend of `harness`.
pub(crate) fn points_of(harness: &dyn Harness, step: Step) -> impl Iterator<Item = CutPoint> {
    let all = STEP_POINTS.iter().chain(harness.cut_points()).copied();
    all.filter(move |point| point.steps.contains(&step))
}
