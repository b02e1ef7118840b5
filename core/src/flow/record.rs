use serde::{Deserialize, Serialize};

use super::plan::{Plan, Row};
use super::progress::Known;
use crate::backend::{PutRegister, Register, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{FlowId, VersionId};
use crate::job::{Payload, Retention, State};
use crate::name::RegisterName;
use crate::time::Timestamp;

/// How a flow is kept, to be raised when older programs would misread it.
const FORMAT: u32 = 1;

/// Where a flow is in its life.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum FlowState {
    /// It is being enqueued; none of its jobs runs yet.
    Building,
    /// Its jobs run, or wait.
    Running,
    /// Somebody cancelled it, and not all of its jobs have ended.
    Cancelling,
    /// All its jobs succeeded.
    Succeeded,
    /// All its jobs have ended, and one at least did not succeed.
    Failed,
    /// Somebody cancelled it, and all its jobs have ended.
    Cancelled,
    /// Its enqueue was broken off. It is removed, and so are its jobs, of which none ran.
    Abandoned,
}

impl FlowState {
    /// Whether all its jobs have ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// That of a job that ended so.
    pub(crate) const fn as_job(self) -> State {
        match self {
            Self::Succeeded => State::Succeeded,
            Self::Failed => State::Failed,
            _ => State::Cancelled,
        }
    }
}

/// How many jobs of a flow have ended, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FlowCounts {
    /// Those that have not ended.
    pub open: u32,
    /// Those that succeeded.
    pub succeeded: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that were cancelled, or are there no more.
    pub cancelled: u32,
}

impl FlowCounts {
    pub(crate) fn new(open: u32) -> Self {
        Self { open, ..Self::default() }
    }

    pub(crate) fn count(&mut self, was: Known, is: Known) {
        *self.of(was) -= 1;
        *self.of(is) += 1;
    }

    fn of(&mut self, known: Known) -> &mut u32 {
        match known {
            Known::Open => &mut self.open,
            Known::Succeeded => &mut self.succeeded,
            Known::Failed => &mut self.failed,
            Known::Cancelled => &mut self.cancelled,
        }
    }
}

/// A flow as the store has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlowRecord {
    /// Its id.
    pub id: FlowId,
    /// What people call it.
    pub name: String,
    /// Where it is in its life.
    pub state: FlowState,
    /// How many jobs it has.
    pub size: u32,
    /// How many of them had ended, and how, when it was last looked at as a whole: exact once it has ended, and some seconds
    /// old before.
    pub counts: FlowCounts,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    pub(crate) body: Body,
    pub(crate) version: VersionId,
}

impl FlowRecord {
    /// Whether its jobs run, or wait.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.body.state, FlowState::Running | FlowState::Cancelling)
    }

    /// Shows what is kept of it.
    pub(crate) fn shown(mut self) -> Self {
        let Body { state, size, counts, created_at, finished_at, .. } = self.body;
        (self.state, self.size, self.counts) = (state, size, counts);
        (self.created_at, self.finished_at) = (created_at, finished_at);
        self
    }
}

/// What is kept of a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    format: u32,
    pub(crate) name: String,
    pub(crate) state: FlowState,
    pub(crate) size: u32,
    pub(crate) counts: FlowCounts,
    pub(crate) retention: Retention,
    pub(crate) created_at: Timestamp,
    pub(crate) finished_at: Option<Timestamp>,
    /// The plan, if it is small.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) plan: Vec<Row>,
    /// In how many registers of its own the plan is, if it is not.
    pub(crate) parts: u32,
    /// How long it waits until it is looked at again, in milliseconds.
    #[serde(default)]
    pub(crate) look_ms: u64,
    /// How often it was retried.
    #[serde(default)]
    pub(crate) round: u32,
}

impl Body {
    pub(crate) fn new(name: String, plan: &Plan, retention: Retention, hour: Timestamp) -> Self {
        Self {
            format: FORMAT,
            name,
            state: FlowState::Building,
            size: plan.size(),
            counts: FlowCounts::new(plan.size()),
            retention,
            created_at: hour,
            finished_at: None,
            plan: Vec::new(),
            parts: 0,
            look_ms: 0,
            round: 0,
        }
    }

    /// Notes that what did not succeed of it goes round again.
    pub(crate) fn retry(&mut self) {
        let FlowCounts { open, failed, cancelled, .. } = std::mem::take(&mut self.counts);
        let open = open + failed + cancelled;
        self.counts = FlowCounts { open, succeeded: self.size.saturating_sub(open), ..FlowCounts::default() };
        (self.state, self.finished_at, self.look_ms) = (FlowState::Running, None, 0);
        self.round += 1;
    }

    /// Notes that all its jobs have ended.
    pub(crate) fn end(&mut self, state: FlowState, counts: FlowCounts, hour: Timestamp) {
        (self.state, self.counts, self.finished_at) = (state, counts, Some(hour));
    }

    /// The write of it over this version, to be looked at then.
    pub(crate) fn put(
        &self,
        flow: FlowId,
        next: Option<Timestamp>,
        expected: Option<VersionId>,
    ) -> Result<PutRegister> {
        let put = PutRegister::new(Space::Flow, register(flow)?, Payload::json(self)?, expected);
        Ok(PutRegister { next, ..put })
    }
}

/// The name of a flow's register.
pub(crate) fn register(flow: FlowId) -> Result<RegisterName> {
    RegisterName::new(flow.to_string())
}

/// The name of the register of a part of a flow's plan.
pub(crate) fn part(flow: FlowId, number: u32) -> Result<RegisterName> {
    RegisterName::new(format!("{flow}/{number}"))
}

impl TryFrom<Register> for FlowRecord {
    type Error = Error;

    fn try_from(register: Register) -> Result<Self> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = register.said()?;
        if format > FORMAT {
            let why = format!(
                "the flow {} is of format {format}; this program reads up to {FORMAT}",
                register.name
            );
            return Err(Error::new(ErrorKind::Incompatible, why));
        }
        let body: Body = register.said()?;
        let id = register.name.as_str().parse().map_err(Error::corrupt)?;
        let Body { state, size, counts, created_at, finished_at, .. } = body;
        let (name, version) = (body.name.clone(), register.version);
        Ok(Self { id, name, state, size, counts, created_at, finished_at, body, version })
    }
}
