//! Recurring work: when a schedule fires, what is decided when it is due, and what is kept of it. Programs handle them by
//! [`Store::schedules`](crate::Store::schedules).

mod plan;
mod record;
mod recurrence;
mod rule;

/// A day of the week.
pub use chrono::Weekday;

pub use plan::{CatchUp, MOST_MISSED, ON_TIME, Overlap, Plan, plan};
pub(crate) use record::Body;
pub use record::{Edit, HEADER, Origin, Run, Schedule, ScheduleRecord, TICK_HEADER};
pub use rule::Rule;
