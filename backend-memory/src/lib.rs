//! The Leasehold job queue in this process's memory.
//!
//! It is two things: the store for tests, since it needs no server and can run on a clock that tests move; and
//! the executable definition of the contract, short enough to be read beside
//! [`Backend`](leasehold_core::Backend). What it keeps is gone with the process (durability class D0).
//!
//! ```
//! use leasehold_core::backend::{Backend, Claim, Enqueue};
//! use leasehold_core::{Deadline, NewJob, QueueName, WorkerId};
//! use leasehold_memory::Memory;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> leasehold_core::Result<()> {
//! let store = Memory::new();
//! let job = NewJob::dynamic("send_mail", "ann@example.org")?;
//! store.enqueue(Deadline::default(), Enqueue { jobs: vec![job] }).await?;
//!
//! let claim = Claim::new(WorkerId::generate(), [QueueName::default()], 10, Duration::from_secs(30));
//! let claimed = store.claim(Deadline::default(), claim).await?;
//! assert_eq!(claimed.jobs[0].job.payload.parse::<String>()?, "ann@example.org");
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: `store` forwards each operation to the file of its name; `schema` holds the tables and
//! indexes that they share; `record` is one row. One mutex guards all; it is never held across an await, and
//! nothing that is done often walks over jobs that it does not touch.

mod config;
mod store;

mod record;
mod schema;

mod admit;
mod claim;
mod control;
mod enqueue;
mod inspect;
mod logs;
mod recover;
mod registers;
mod renew;
mod settle;
mod watch;
mod workers;

pub use config::Config;
pub use store::Memory;
