use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_core::backend::Capabilities;
use leasehold_core::{RegisterName, Timestamp};

use crate::history::verdict::Tally;

/// What a run was meant to be, beyond what holds for every one.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Rules {
    /// Whether the run went on until every job had ended, and the jobs were looked at then.
    pub drained: bool,
    /// A run in which less than this happened proves nothing.
    pub least: Tally,
    /// Whether something between the recorder and the store may have made a call twice, such as a driver: then a
    /// call may be told that it was applied already, by itself.
    pub repeats_inside: bool,
    /// Whether the store's counts are exact; if not, they are not judged.
    pub exact_counts: bool,
    /// Whether a limit key holds also between claims that are made at the same moment.
    pub strict_limits: bool,
    /// Whether every run of a handler was recorded: then no attempt is settled that nobody began.
    pub runs_told: bool,
    /// How long by the store's clock a due job may wait once nothing is broken any more, if that is known.
    pub granted_within: Option<Duration>,
    /// Which ticks each schedule had to fire, if that is known: no other and none less.
    pub ticks: BTreeMap<RegisterName, Vec<Timestamp>>,
    /// The command that repeats the run.
    pub repeated_by: Option<String>,
}

impl Rules {
    /// A run that ended when every job had, with at least so many grants.
    pub fn drained(grants: usize) -> Self {
        let mut rules = Self { drained: true, ..Self::default() };
        rules.least.grants = grants;
        rules
    }

    /// Asks for at least so many leases that were lost.
    #[must_use]
    pub fn losses(mut self, losses: usize) -> Self {
        self.least.losses = losses;
        self
    }

    /// Asks for at least so many calls of which nothing is known.
    #[must_use]
    pub fn unknown(mut self, unknown: usize) -> Self {
        self.least.unknown = unknown;
        self
    }

    /// Asks for at least so many faults, and for a grant while things were broken.
    #[must_use]
    pub fn faults(mut self, faults: usize) -> Self {
        self.least.faults = faults;
        self.least.grants_under_faults = 1;
        self
    }

    /// Asks for nine tenths of the calls that were planned.
    #[must_use]
    pub fn planned(mut self, calls: usize) -> Self {
        self.least.calls = calls - calls / 10;
        self
    }

    /// Asks for at least this much of everything.
    #[must_use]
    pub fn at_least(mut self, least: impl FnOnce(&mut Tally)) -> Self {
        least(&mut self.least);
        self
    }

    /// Lets calls be repeated between the recorder and the store.
    #[must_use]
    pub fn repeats_inside(mut self) -> Self {
        self.repeats_inside = true;
        self
    }

    /// Judges by what the store says of itself.
    #[must_use]
    pub fn of_a_store(mut self, capabilities: &Capabilities) -> Self {
        self.exact_counts = capabilities.exact_counts;
        self.strict_limits = capabilities.strict_limits;
        self
    }

    /// Says that every run of a handler was recorded.
    #[must_use]
    pub fn runs_told(mut self) -> Self {
        self.runs_told = true;
        self
    }

    /// Lets a due job wait for so long by the store's clock once nothing is broken any more.
    #[must_use]
    pub fn granted_within(mut self, span: Duration) -> Self {
        self.granted_within = Some(span);
        self
    }

    /// Asks for exactly these ticks of a schedule.
    #[must_use]
    pub fn ticks(mut self, schedule: RegisterName, ticks: impl IntoIterator<Item = Timestamp>) -> Self {
        self.ticks.insert(schedule, ticks.into_iter().collect());
        self
    }

    /// Says which command repeats the run.
    #[must_use]
    pub fn repeated_by(mut self, command: impl Into<String>) -> Self {
        self.repeated_by = Some(command.into());
        self
    }
}
