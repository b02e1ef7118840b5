//! The handles that a program holds: [`Store`] for all jobs, [`Queue`] for those of one queue, and
//! [`Consumer`] with its [`HeldJob`]s for working by hand. What runs handlers is [`Worker`](crate::Worker).

mod asked;
mod consumer;
mod control;
mod held;
mod lock;
mod logs;
mod queue;
mod rate;
mod rates;
mod register;
mod store;
mod wait;
mod wake;

pub(crate) use asked::Asked;
pub use consumer::Consumer;
pub use control::Bulk;
pub use held::HeldJob;
pub use lock::{Lock, LockGuard};
pub use queue::Queue;
pub use rate::Admission;
pub(crate) use rates::Rates;
pub use store::Store;
pub(crate) use wake::{Wake, jittered};
