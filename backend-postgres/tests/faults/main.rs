//! What breaks, and what holds all the same: a server that is killed and frozen, connections that break, locks that
//! others hold, rows that are damaged, users without rights, poolers, and input that is meant to do harm.
//!
//! What only changes its own schema shares a server; what breaks one has one of its own.

mod bench;
mod crowded;
mod damage;
mod events;
mod input;
mod killing;
mod leases;
mod locks;
mod logs;
mod pooler;
mod races;
mod rights;
mod wire;
mod working;
