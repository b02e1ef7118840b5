//! Every decision about a job, as pure functions: no store, no clock, no randomness of their own.
//!
//! A random number that a function needs comes in as `roll`, from 0 up to but not including 1.

mod backoff;
mod lease;
mod lock;
mod outcome;
mod prefetch;
mod rate;
mod retry;

pub use backoff::Backoff;
pub use lease::LeaseTimes;
pub use lock::LockState;
pub use outcome::{BoxError, Control, Decision, HandlerError, JobFailure, Outcome};
pub use prefetch::prefetch;
pub use rate::{Rate, Room, Usage};
pub use retry::{ClassRule, RetryPolicy, after_attempt, after_expiry, after_refusal};
