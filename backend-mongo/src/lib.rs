//! Keeps the jobs of a Leasehold queue in MongoDB.
//!
//! Every change is one conditional write that carries the token of its lease; the hour is the server's. See
//! `docs/guide/mongodb.md` for sizing, indexes and what is promised on which kind of server.

mod admit;
mod candidates;
mod capped;
mod changes;
mod claim;
mod config;
mod control;
mod enqueue;
mod error;
mod heads;
mod hour;
mod inspect;
mod limits;
mod log_head;
mod logs;
mod record;
mod recover;
mod registers;
mod renew;
mod replace;
mod schema;
mod session;
mod settle;
mod store;
mod tail;
mod transition;
mod turns;
mod watch;
mod workers;

pub use config::{Config, Events};
pub use leasehold_core::backend::LogCaps;
pub use mongodb;
pub use store::Mongo;
