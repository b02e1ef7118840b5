//! The clauses of the contract, and what a store may lack.

use leasehold_core::backend::Capabilities;
use serde::{Deserialize, Serialize};

use crate::harness::Harness;
use crate::processes::Skew;

/// A clause of the contract, by the number it has in `docs/contract.md`.
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
    strum::EnumIter,
    strum::EnumMessage,
    strum::VariantArray,
)]
pub enum Clause {
    /// Durable.
    P1,
    /// Idempotent by id.
    P2,
    /// Batch of jobs.
    P3,
    /// Unique.
    P4,
    /// Transactional.
    P5,
    /// Verbatim.
    P6,
    /// Parked.
    P7,
    /// Moved.
    P8,
    /// Exclusive.
    C1,
    /// Fenced.
    C2,
    /// Self-fenced.
    C2a,
    /// Self-healing.
    C3,
    /// Attempts bounded.
    C4,
    /// Poison.
    C5,
    /// Order.
    C6,
    /// Selection.
    C7,
    /// Time.
    C8,
    /// Limited.
    C9,
    /// Paused.
    C10,
    /// Batch of claims and settlements.
    C11,
    /// One end.
    S1,
    /// Nothing lost, nothing twice.
    S2,
    /// Retry.
    S3,
    /// History.
    S4,
    /// Cancel.
    S5,
    /// Result and progress.
    S6,
    /// Capped.
    L1,
    /// Ordered.
    L2,
    /// Followed.
    L3,
    /// Harmless.
    L4,
    /// Registry.
    F1,
    /// Schedules.
    F2,
    /// Events are hints.
    F3,
    /// Bounded reads.
    F4,
    /// Retention.
    F5,
    /// Registers.
    F6,
    /// Locks.
    F7,
    /// Rates.
    F8,
    /// Flows.
    F9,
    /// Unknown is not failure.
    E1,
    /// Repeatable.
    E2,
    /// Deadline.
    E3,
    /// Cancel-safe.
    E4,
    /// Names are validated once.
    B1,
    /// Sizes are bounded.
    B2,
    /// Unreadable records are set aside.
    B3,
    /// Versions of the store.
    B4,
    /// No secret is shown.
    B5,
    /// The store is down.
    B6,
}

/// Something that a case needs and that a store may honestly lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Need {
    /// Batches of enqueues that are all or nothing.
    AtomicBatch,
    /// Events.
    Events,
    /// Events of what other clients do.
    SharedEvents,
    /// Limit keys that hold under racing claims.
    StrictLimits,
    /// Counts of one moment.
    ExactCounts,
    /// Transactions of the caller's.
    Transactions,
    /// Several processes on one store.
    Processes,
    /// Failpoints in this build.
    Failpoints,
    /// A clock of the store's own.
    OwnClock,
    /// Processes whose clocks are wrong.
    Skew,
}

impl Need {
    /// Why a store of these capabilities cannot run the case; none if it can.
    pub(crate) fn lacking(self, harness: &dyn Harness, capabilities: &Capabilities) -> Option<&'static str> {
        let (has, otherwise) = match self {
            Self::AtomicBatch => (capabilities.atomic_batch, "its batches are not all or nothing"),
            Self::Events => (capabilities.events, "it has no events"),
            Self::SharedEvents => {
                (capabilities.events && capabilities.shared_events, "it sees no events of other clients")
            }
            Self::StrictLimits => {
                (capabilities.strict_limits, "claims at the same moment may exceed a limit key")
            }
            Self::ExactCounts => {
                (capabilities.exact_counts, "its counts are not of one moment while jobs move")
            }
            Self::Transactions => (capabilities.transactions, "it has no transactions of a caller's"),
            Self::Processes => (harness.elsewhere().is_some(), "the store lives within one process"),
            Self::OwnClock => {
                (capabilities.own_clock, "it reads the clock of the machine that its client runs on")
            }
            Self::Failpoints | Self::Skew => (true, ""),
        };
        (!has).then_some(otherwise)
    }

    /// What this machine or this build lacks for the case; none if nothing.
    pub(crate) fn missing_here(self) -> Option<String> {
        match self {
            Self::Processes if !cfg!(unix) => Some("processes are killed and frozen on Unix alone".into()),
            Self::Failpoints if !cfg!(feature = "failpoints") => {
                Some("the suite was built without its feature `failpoints`".into())
            }
            Self::Skew => Skew::new(0).err().map(|missing| missing.to_string()),
            _ => None,
        }
    }
}
