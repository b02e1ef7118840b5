//! The Leasehold job queue in a PostgreSQL database.
//!
//! ```no_run
//! use leasehold_core::backend::{Backend, Enqueue};
//! use leasehold_core::{Deadline, NewJob};
//! use leasehold_postgres::Postgres;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Postgres::connect("postgres://ann:secret@localhost/shop?schema=jobs").await?;
//! store.setup(Deadline::default()).await?;
//! let job = NewJob::dynamic("send_mail", "ann@example.org")?;
//! store.enqueue(Deadline::default(), Enqueue { jobs: vec![job] }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! - **Durability**: D2 where the server syncs its log before it acknowledges (`fsync` and `synchronous_commit` on, as
//!   they are by default); it is read from the server, and shown by `describe`.
//! - **Your own tables** may be in the same database, and jobs be enqueued in your own transactions:
//!   [`Postgres::enqueue_in`]. All of ours are in a schema of their own.
//! - **One round trip**: every call on a queue's way is one statement, which runs a function of our schema.
//! - **Events** by `LISTEN`; behind a pooler in transaction mode ([`Config::pooler`]) there are none, and workers poll.
//!
//! In reading order: `store` forwards each operation to the file of its name; `session` begins and ends a call on a
//! connection that `pool` lends; `schema` checks the server and makes the tables; `migrations/` holds these and the
//! functions that the operations call; `record` makes jobs of rows. Why it is so is told in
//! `docs/decisions/0007-postgres-shape.md`.

mod config;
mod store;

mod pool;
mod record;
mod schema;
mod session;

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
mod upkeep;
mod watch;
mod workers;

mod error;

pub use config::Config;
pub use leasehold_core::backend::LogCaps;
pub use sqlx;
pub use store::Postgres;
