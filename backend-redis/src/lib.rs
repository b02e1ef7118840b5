//! Keeps the jobs of a Leasehold queue on a Redis or Valkey server.
//!
//! Every operation is one script that the server runs alone, on its own clock, and that compares the token of the lease
//! which it writes under. What an acknowledged write outlives is what the server's append-only file says: class D2 with
//! `appendfsync always`. See `docs/guide/redis.md` for settings and for what is not promised.
//!
//! In reading order: `store` forwards each operation to the file of its name; each of these hands its arguments to the
//! script of its name in `scripts/`, by `session`, and makes answers of what comes back. `scripts/shared.lua` has the
//! structure of what is stored, and `docs/decisions/0008-redis-shape.md` why it is so.

mod config;
mod store;

mod record;
mod schema;
mod scripts;
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
mod settle;
mod watch;
mod workers;

mod error;

pub use config::Config;
pub use enqueue::Enqueueing;
pub use leasehold_core::backend::LogCaps;
pub use redis;
pub use store::Redis;
