//! One round of a comparison of job queues: the jobs, who counts their runs, and the clock, the same for all.

mod play;
mod tally;

use std::error::Error;

pub use play::{Course, Queue, Round, Worker, play};
pub use tally::{Counts, Job, Tally};

/// What ends a round: an error of a queue, a driver or a file.
pub type Trouble = Box<dyn Error + Send + Sync>;
