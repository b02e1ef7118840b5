//! What several clients did to one store, written down as it happened, and judged afterwards.
//!
//! Wrap each client's backend in a [`Recorder`], let each write to a [`FileSink`] of its own process or all to
//! one [`MemorySink`], write down with its [`Journal`] what is no call (a handler's start, a fault, the last
//! look), join the files with [`read_files`], and ask [`check`]:
//!
//! ```
//! use std::sync::Arc;
//! use leasehold_conformance::history::{MemorySink, Recorder, Rules, check};
//! use leasehold_core::backend::{Backend, Enqueue};
//! use leasehold_core::{Deadline, NewJob};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> leasehold_core::Result<()> {
//! let (store, sink) = (Arc::new(leasehold_memory::Memory::new()), MemorySink::default());
//! let client = Recorder::wrap(store.clone(), "producer#1", Arc::new(sink.clone()));
//! let jobs = vec![NewJob::dynamic("send_mail", "ann@example.org")?];
//! client.enqueue(Deadline::default(), Enqueue { jobs }).await?;
//! client.journal().last_look(&*store).await?;
//!
//! let verdict = check(&sink.events(), &Rules::default());
//! assert!(verdict.is_valid(), "{verdict}");
//! # Ok(())
//! # }
//! ```
//!
//! A line of a file is one [`Event`] as JSON: `t` nanoseconds of the machine's monotonic clock, `p` the process,
//! `op` the call's number, `k` what happened, `f` the method, `a` what was asked, `r` what was answered.

mod checker;
mod clock;
mod event;
mod held;
mod hint;
mod journal;
mod keeping;
mod recorder;
mod sink;
mod story;
mod verdict;

#[cfg(test)]
mod tests;

pub use checker::{Rules, check};
pub use clock::monotonic;
pub use event::{
    Append, Asked, Attempt, Call, Change, ChangeKind, DueAs, Entry, Event, Extended, Fate, Fault, Granted,
    Line, Plan, Presence, Put, Reading, Reply, Seen, Setting, What, Write,
};
pub use hint::{Hint, Watching};
pub use journal::Journal;
pub use recorder::Recorder;
pub use sink::{FileSink, MemorySink, Sink, read_files};
pub use verdict::{About, Finding, Invariant, Tally, Verdict};
