use serde::{Deserialize, Serialize};

/// What an acknowledged write outlives (clause P1). Ordered: a later one is stronger.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
)]
pub enum Durability {
    /// Gone with a process.
    D0,
    /// Survives the crash of any process, the store's included.
    D1,
    /// Survives the loss of power.
    D2,
    /// Survives the loss of any minority of nodes.
    D3,
}

/// What a store can do beyond the contract's core. A clause that it cannot keep is named here or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// What an acknowledged write outlives, as the server's settings say now (P1).
    pub durability: Durability,
    /// Whether a batch of enqueues is all or nothing (P3).
    pub atomic_batch: bool,
    /// Whether jobs can be enqueued in the caller's own transaction, by a method of the concrete type (P5).
    pub transactions: bool,
    /// Whether [`watch`](super::Backend::watch) sees what other processes do (F3).
    pub shared_events: bool,
    /// Whether there are events at all (F3).
    pub events: bool,
    /// Whether a limit key holds also when workers claim its jobs at the same moment (C9).
    pub strict_limits: bool,
    /// Whether counts are of one moment while jobs move, and a crash leaves none behind (S2).
    pub exact_counts: bool,
    /// Whether the store has a clock of its own, so that those of its clients' machines count for nothing (C8).
    pub own_clock: bool,
}

impl Capabilities {
    /// A store of this durability that can do nothing beyond the core.
    pub const fn none(durability: Durability) -> Self {
        Self {
            durability,
            atomic_batch: false,
            transactions: false,
            shared_events: false,
            events: false,
            strict_limits: false,
            exact_counts: false,
            own_clock: false,
        }
    }
}

/// What a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The backend's name, as its crate calls it.
    pub backend: String,
    /// The store's own version, as it reports it.
    pub version: String,
    /// Where it is, with no password in it (B5).
    pub location: String,
    /// What it can do.
    pub capabilities: Capabilities,
}
