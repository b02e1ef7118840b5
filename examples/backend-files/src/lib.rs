//! An example of a backend: jobs in plain files behind a lock, with no database.
//!
//! It is what somebody outside of this project would write, from nothing but `leasehold-core`, and
//! `docs/guide/writing-a-backend.md` is written along its files. It keeps the whole contract but for events, and is
//! meant to be read, not to be fast: one operation at a time over all processes, each waiting for the disk, and all
//! jobs in the memory of each process.
//!
//! In the folder are two files. `lock` is locked by whoever works, and by nobody once that process is dead. `journal`
//! has a line for each operation that changed anything, with all of its changes: a line is there or not, so an
//! operation is whole or not at all, however its process ends. Each process keeps what the journal says in its
//! tables, and reads on before it does anything. A journal that is mostly outdated is written anew beside the old
//! one and put in its place.
//!
//! In reading order: `store` runs each operation under the lock; `journal` is the file; `schema` holds the tables,
//! which change in no way but by what the journal says; `record` is one row; each other file is the operation of its
//! name.

#![allow(clippy::needless_pass_by_value, reason = "each operation is given its request")]

mod store;

mod error;
mod journal;
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
mod workers;

pub use store::Files;
