use std::collections::BTreeMap;
use std::fmt;

use leasehold_core::{JobId, LimitKey, QueueName, RegisterName, UniqueKey, WorkerId};

use super::checker::Model;
use super::story::tell;

/// What a history may never show.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::VariantArray,
)]
pub enum Invariant {
    /// An acknowledged job is lost, or one whose enqueue failed is there.
    I1,
    /// A job is invented or altered.
    I2,
    /// A job is given out, or taken back, while somebody certainly holds it; an attempt is granted twice.
    I3,
    /// A write is accepted from somebody who is no longer the holder, or the holder is refused.
    I4,
    /// A job that has ended lives on, or ends twice.
    I5,
    /// Attempts go back, skip or exceed their number.
    I6,
    /// A handler runs without a lease, or more often than can be explained.
    I7,
    /// A retry comes too soon or never.
    I8,
    /// A job is given out before its time.
    I9,
    /// A job is given out before one that stands before it.
    I10,
    /// Two jobs hold one unique key, or a producer is refused for a key that nobody holds.
    I11,
    /// A cancelled job goes on, or its holder is not told.
    I12,
    /// Counts do not add up.
    I13,
    /// A watcher is told of what did not happen, or of what it had not asked for.
    I14,
    /// A job waits for ever, or for too long.
    I15,
    /// A worker that was stopped is given a job or still holds one.
    I16,
    /// More jobs of one limit key run than may, or a paused queue gives out a job.
    I17,
    /// A tick of a schedule is missed or doubled.
    I18,
    /// A line of a log is lost, doubled, invented or out of its order.
    I19,
    /// What was done with one job has no order in which it can have been done: the second opinion.
    Linear,
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum About {
    /// A job.
    #[strum(to_string = "job {0}")]
    Job(JobId),
    /// A queue.
    #[strum(to_string = "queue {0}")]
    Queue(QueueName),
    /// A unique key.
    #[strum(to_string = "unique key {0}")]
    UniqueKey(UniqueKey),
    /// A limit key.
    #[strum(to_string = "limit key {0}")]
    LimitKey(LimitKey),
    /// A worker.
    #[strum(to_string = "worker {0}")]
    Worker(WorkerId),
    /// A schedule.
    #[strum(to_string = "schedule {0}")]
    Register(RegisterName),
}

/// One invariant that was broken once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub invariant: Invariant,
    /// What it is about.
    pub about: About,
    /// How.
    pub why: String,
    /// What has to be known to understand it, such as the ends of leases.
    pub facts: Vec<String>,
    pub(crate) ops: Vec<usize>,
}

macro_rules! tally {
    ($($(#[doc = $doc:literal])+ $field:ident: $what:literal,)+) => {
        /// How much happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Tally {
            $($(#[doc = $doc])+ pub $field: usize,)+
        }

        impl Tally {
            /// Of what there was less than this, in words.
            pub(crate) fn missing(&self, had: &Self) -> Vec<String> {
                let demands = [$(($what, had.$field, self.$field)),+];
                let too_few = demands.into_iter().filter(|(_, had, wanted)| had < wanted);
                too_few
                    .map(|(what, had, wanted)| format!("{had} {what}, and at least {wanted} were wanted"))
                    .collect()
            }
        }
    };
}

tally! {
    /// Lines.
    events: "events",
    /// Calls.
    calls: "calls",
    /// Calls of which nothing is known.
    unknown: "calls of which nothing is known",
    /// Calls that failed for certain.
    failed: "calls that failed",
    /// Jobs.
    jobs: "jobs",
    /// Enqueues that were acknowledged.
    enqueued: "jobs acknowledged",
    /// Enqueues that were told who holds their key.
    refused_keys: "jobs refused for a unique key",
    /// Leases given out.
    grants: "grants",
    /// Those of jobs that have a limit key.
    limited: "grants of jobs with a limit key",
    /// Those given between the first and the last fault.
    grants_under_faults: "grants while things were broken",
    /// Leases taken back.
    losses: "lost leases",
    /// Settlements that were refused because the lease was lost.
    refused: "settlements under lost leases",
    /// Cancellations.
    cancels: "cancellations",
    /// Handlers started.
    starts: "runs of handlers",
    /// Jobs that have ended.
    ended: "jobs that ended",
    /// Counts that were answered.
    counts: "counts",
    /// Pauses of queues.
    pauses: "pauses",
    /// Events that watchers were told.
    told: "events told",
    /// Workers that were stopped.
    stops: "stopped workers",
    /// Writes of schedules.
    plans: "writes of schedules",
    /// Faults injected.
    faults: "faults",
    /// Jobs of which there is a second opinion.
    ordered: "jobs with a second opinion",
}

/// What a checker says of a history.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The broken invariants.
    pub findings: Vec<Finding>,
    /// What is wrong with the history itself: the harness is at fault, and not the store.
    pub harness: Vec<String>,
    /// Why the history proves nothing, if it does not.
    pub vacuous: Vec<String>,
    /// What was not judged, and why.
    pub unjudged: Vec<String>,
    /// How much happened.
    pub tally: Tally,
    story: String,
    pub(crate) repeated_by: Option<String>,
}

impl Verdict {
    pub(crate) fn new(findings: Vec<Finding>, tally: Tally, model: &Model<'_>) -> Self {
        // The shortest story is the one that is understood first, and a search explains least.
        let length = |finding: &&Finding| {
            (finding.invariant == Invariant::Linear, finding.ops.len(), finding.invariant)
        };
        let shortest = findings.iter().min_by_key(length);
        let story = shortest.map(|finding| tell(finding, model)).unwrap_or_default();
        let (harness, vacuous, unjudged) = (model.harness.clone(), Vec::new(), Vec::new());
        Self { findings, harness, vacuous, unjudged, tally, story, repeated_by: None }
    }

    /// Whether the history is whole, shows something, and breaks nothing.
    pub fn is_valid(&self) -> bool {
        self.findings.is_empty() && self.harness.is_empty() && self.vacuous.is_empty()
    }

    /// How often each invariant was broken.
    pub fn broken(&self) -> BTreeMap<Invariant, usize> {
        let mut broken = BTreeMap::new();
        for finding in &self.findings {
            *broken.entry(finding.invariant).or_default() += 1;
        }
        broken
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { calls, jobs, grants, losses, unknown, ended, starts, .. } = self.tally;
        writeln!(
            f,
            "{calls} calls ({unknown} unknown), {jobs} jobs, {grants} grants, {losses} leases lost, \
             {starts} runs, {ended} jobs ended"
        )?;
        for wrong in &self.harness {
            writeln!(f, "harness: {wrong}")?;
        }
        for why in &self.vacuous {
            writeln!(f, "proves nothing: {why}")?;
        }
        for what in &self.unjudged {
            writeln!(f, "not judged: {what}")?;
        }
        for (invariant, times) in self.broken() {
            writeln!(f, "{invariant} broken {times} times")?;
        }
        f.write_str(&self.story)?;
        match &self.repeated_by {
            Some(command) if !self.is_valid() => writeln!(f, "repeat it by: {command}"),
            _ => Ok(()),
        }
    }
}
