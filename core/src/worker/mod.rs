//! The worker: runs handlers for jobs, keeps their leases, and settles them.
//!
//! It is made of small services with one life each. `fetch` fills free slots by one batched claim, `execute`
//! runs handlers, `heartbeat` renews leases and stops handlers that lost theirs, `settle` records ends in
//! batches, `flows` leads on flows whose jobs ended, `log` carries lines to the capped logs, `maintain` takes back what other workers lost and checks
//! in, `bound` ends it when it was to end by then. No store's error ends any of them.

mod attempt;
mod bound;
mod builder;
mod choice;
mod context;
mod execute;
mod extract;
mod fetch;
mod flows;
mod handler;
mod heartbeat;
mod held;
#[cfg(feature = "job-logs")]
mod job_logs;
mod log;
mod maintain;
mod options;
mod own_log;
pub(crate) mod panics;
#[cfg(all(unix, feature = "process"))]
mod process;
mod raw;
mod run;
mod settle;
mod shared;

pub use attempt::Attempt;
pub use builder::WorkerBuilder;
pub use choice::QueueChoice;
pub use extract::{Args, FromAttempt, State};
pub use handler::{Handler, HandlerService, IntoOutcome, IntoResult, Json};
#[cfg(feature = "job-logs")]
pub use job_logs::JobLogs;
pub use options::{HandlerOptions, RawOptions};
#[cfg(all(unix, feature = "process"))]
pub use process::{ExitMeaning, Process};
pub use run::{EndedBy, RunningWorker, Stopper, Summary, Worker};
