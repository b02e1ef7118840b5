//! The Leasehold job queue in an SQLite file: durable, on one machine, with no server.
//!
//! ```
//! use leasehold_core::backend::{Backend, Claim, Enqueue};
//! use leasehold_core::{Deadline, NewJob, QueueName, WorkerId};
//! use leasehold_sqlite::Sqlite;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("jobs.db");
//! let store = Sqlite::open(path).await?;
//! store.setup(Deadline::default()).await?;
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
//! - **Durability**: a commit reaches the disk before it is acknowledged, class D2. With
//!   [`Synchronous::Normal`] the loss of power may take the latest commits, class D1.
//! - **Processes**: any number may share the file on a local disk, not on a network file system.
//! - **Your own tables** may live in the same file, and jobs be enqueued in your own transactions:
//!   [`Sqlite::enqueue_in`]. All of ours begin with `leasehold_`.
//! - **Throughput**: what is asked at the same time shares a transaction and its disk flush, so many callers
//!   are faster than one, and batches faster than single jobs.
//!
//! In reading order: `store` forwards each operation to the file of its name; `writer` is the task that owns
//! the connection which writes; `schema` opens and checks the file; `migrations/` holds the tables, and
//! `record` makes jobs of their rows. Why it is so is told in `docs/decisions/0002-sqlite-shape.md`.

mod config;
mod store;

mod record;
mod schema;
mod writer;

mod admit;
mod claim;
mod control;
mod enqueue;
mod inspect;
mod logs;
mod recover;
mod registers;
mod renew;
mod replace;
mod settle;
mod watch;
mod workers;

mod error;

pub use config::{Config, Synchronous};
pub use leasehold_core::backend::LogCaps;
pub use sqlx;
pub use store::Sqlite;
