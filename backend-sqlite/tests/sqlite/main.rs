//! What is SQLite's alone; what every backend promises is judged by `leasehold-conformance`.

#![allow(clippy::unwrap_used, reason = "in a test, helpers too may panic")]

mod bench;
mod caller;
mod faults;
mod opening;
mod sharing;
