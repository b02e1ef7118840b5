//! Recurring work: when a schedule fires, what is decided when it is due, and what is kept of it. Programs handle them by
//! [`Store::schedules`](crate::Store::schedules).

mod plan;
mod record;
mod recurrence;
mod rule;

pub use plan::{CatchUp, MOST_MISSED, ON_TIME, Overlap, Plan, plan};
pub(crate) use record::Body;
pub use record::{Edit, HEADER, Run, Schedule, ScheduleRecord};
pub use rule::Rule;
