//! What breaks, and what holds all the same: servers that are killed, frozen, set back, filled up and put under others,
//! settings that lose jobs, users without rights, keys that are somebody else's, and input that is meant to do harm.
//!
//! Each test has servers of its own. What happened under load was recorded, and is judged by the checker of the
//! conformance suite.

mod bench;
mod cluster;
mod damage;
mod failover;
mod full;
mod input;
mod killing;
mod load;
mod rights;
mod settings;
mod wire;
