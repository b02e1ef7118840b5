//! The handles that a program holds: [`Store`] for all jobs, [`Queue`] for those of one queue, and
//! [`Consumer`] with its [`HeldJob`]s for working by hand. What runs handlers is [`Worker`](crate::Worker).

mod asked;
mod consumer;
mod control;
mod held;
mod hold;
mod logs;
mod queue;
mod raw;
mod raw_set;
mod store;
mod wait;
mod wake;

pub(crate) use asked::Asked;
pub use consumer::Consumer;
pub use control::Bulk;
pub use held::HeldJob;
pub use hold::Hold;
pub use logs::{SaidLine, WorkerLog};
pub use queue::Queue;
pub use raw::{Graph, Raw, RawCount, RawList};
pub use raw_set::{RawSet, RawSorted, RawTimed};
pub use store::Store;
pub(crate) use wake::{Wake, jittered};
