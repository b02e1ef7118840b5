//! Jobs that wait for jobs: what a flow is made of, which of its jobs may run, and what is kept of it. Programs handle flows by
//! [`Store::flows`](crate::Store::flows).

mod builder;
mod dependents;
mod named;
mod plan;
mod progress;
mod record;
mod survey;

pub use builder::{Adding, Flow, Group, HEADER, OnParentFailure, Parents, Step};
pub use named::{NAME_HEADER, NamedFlow, NamedJob};
pub(crate) use plan::Plan;
#[cfg(test)]
pub(crate) use plan::Row;
pub(crate) use progress::{Decision, Known, Progress};
pub(crate) use record::{Body, part, register};
pub use record::{FlowCounts, FlowRecord, FlowState};
pub(crate) use survey::Survey;

use crate::id::FlowId;
use crate::job::JobRecord;

/// The place of a job in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The flow.
    pub flow: FlowId,
    /// The job's number in it, from 0, in the order in which they were added.
    pub index: u32,
}

impl Member {
    /// The place of this job; none if it is of no flow.
    pub fn of(job: &JobRecord) -> Option<Self> {
        // A header that was copied to another job makes it no member.
        let said = job.options.headers.get(HEADER)?.parse().ok()?;
        let (flow, index) = FlowId::of_member(job.id)?;
        (flow == said).then_some(Self { flow, index })
    }
}
