//! The handles that a program holds: [`Store`] for all jobs, [`Queue`] for those of one queue, and
//! [`Consumer`] with its [`HeldJob`]s for working by hand. What runs handlers is [`Worker`](crate::Worker).

mod asked;
mod consumer;
mod control;
#[cfg(feature = "schedules")]
mod fire;
mod flows;
mod gauges;
mod held;
mod hold;
pub(crate) mod known;
mod lock;
mod logs;
#[cfg(feature = "prometheus")]
mod prometheus;
mod queue;
mod rate;
mod rates;
mod raw;
mod raw_set;
mod recover;
mod register;
#[cfg(feature = "schedules")]
mod schedules;
mod store;
mod stride;
mod transfer;
mod wait;
mod wake;
mod why;

pub(crate) use asked::Asked;
pub use consumer::Consumer;
pub use control::Bulk;
pub use flows::{Flows, MemberRecord};
pub use gauges::Gauges;
pub use held::HeldJob;
pub use hold::Hold;
pub use lock::{Lock, LockGuard};
pub use logs::{SaidLine, WorkerLog};
#[cfg(feature = "prometheus")]
pub use prometheus::Prometheus;
pub use queue::Queue;
pub use rate::Admission;
pub(crate) use rates::Rates;
pub use raw::{Graph, Raw, RawCount, RawList};
pub use raw_set::{RawSet, RawSorted, RawTimed};
#[cfg(feature = "schedules")]
pub use schedules::{Declared, Schedules};
pub use store::Store;
pub use transfer::{Account, Transfer};
pub(crate) use wake::{Wake, jittered};
pub use why::Why;
