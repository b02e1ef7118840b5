//! Keeps the jobs of a Leasehold queue in an SQLite file.

mod claim;
mod config;
mod control;
mod enqueue;
mod error;
mod inspect;
mod logs;
mod record;
mod recover;
mod renew;
mod schedules;
mod schema;
mod settle;
mod store;
mod watch;
mod workers;
mod writer;

pub use config::{Config, LogCaps, Synchronous};
pub use sqlx;
pub use store::Sqlite;
