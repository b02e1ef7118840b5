//! What a job is: what its producer says of it, what its store keeps of it, and the states of its life.

mod bundle;
mod new_job;
mod options;
mod payload;
mod record;
mod state;
mod transition;

pub(crate) use bundle::{Bundle, PUSHED_BACK, Terms};
pub use new_job::{Due, IntoJob, JobArgs, NewJob};
pub use options::{JobOptions, Keep, Limit, OnConflict, Retention, Unique, UniqueScope, WhenFull};
pub use payload::Payload;
pub use record::{Failure, JobRecord, LeasedJob, Progress};
pub use state::{Cause, Reason, State, TRANSITIONS};
