//! The command as its users run it: what it prints, to where, and how it ends.

#![expect(clippy::unwrap_used, reason = "what is not there ends the test")]

mod bench;
mod input;
mod jobs;
mod queues;
mod shape;
mod transfer;
#[cfg(unix)]
mod work;
