//! What breaks, and what holds all the same: servers that are killed, frozen, cut off, rolled back and made to fail,
//! users without rights, and input that is meant to do harm.
//!
//! Each module has servers of its own. What happened under load was recorded, and is judged by the checker of the
//! conformance suite.

mod bench;
mod clocks;
mod conflicts;
mod crowded;
mod cutting;
mod failover;
mod input;
mod killing;
mod load;
mod losing_answers;
mod rights;
mod rollback;
mod wire;
