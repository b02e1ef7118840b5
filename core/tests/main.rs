//! The client, the worker and the layers, on the store in memory and virtual time.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod absurd;
mod consumer;
mod context;
mod cursor;
mod faults;
mod flows;
mod layers;
mod leases;
mod limits;
mod locks;
mod logs;
mod modes;
mod outcomes;
mod panics;
mod probe;
#[cfg(unix)]
mod process;
mod queue;
mod rates;
mod raw;
mod retention;
mod roots;
mod schedules;
mod scrapes;
mod storm;
mod telemetry;
mod transfer;
mod wakes;
mod why;
mod worker;

use leasehold_core::{JobArgs, Store};
use leasehold_memory::Memory;
use serde::{Deserialize, Serialize};

/// A fresh store in memory.
fn store() -> Store {
    Store::new(Memory::new())
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Add {
    a: u64,
    b: u64,
}

impl JobArgs for Add {
    const KIND: &'static str = "add";
}
