//! Several processes on one store: the parent, which runs the cases, starts this very program again, has its children
//! do what clients do, and kills, freezes and skews them.
//!
//! In reading order: `order` is what is said over the pipes between parent and child, `child` the child's side, `crew`
//! the parent's; `matrix` says where processes are cut off, `step` what they were about to do, and
//! `row` takes a step through all of the points; `schedulers` are several processes that fire schedules.

mod child;
mod crew;
mod matrix;
mod order;
mod row;
mod schedulers;
mod skew;
mod step;

use std::time::Duration;

pub(crate) use self::child::play;
pub(crate) use self::crew::{Crew, Hour};
pub use self::matrix::{CutPoint, Effect, Step};
pub(crate) use self::matrix::{SCHEDULER_POINTS, WORKER_POINTS};
pub(crate) use self::order::{Ending, Order, Role, Said};
pub(crate) use self::row::row;
pub(crate) use self::schedulers::Schedulers;
pub use self::skew::Skew;
pub(crate) use self::step::Plan;
use crate::case::CASE_BOUND;

/// How long a case may take that starts process after process.
pub(crate) fn bound() -> Duration {
    CASE_BOUND * 4
}
