use std::time::Duration;

use crate::id::{JobId, LeaseToken};
use crate::job::Progress;
use crate::time::Timestamp;

/// Asks for leases to be extended.
#[derive(Debug, Clone, Default)]
pub struct Renew {
    /// The leases.
    pub renewals: Vec<Renewal>,
}

/// One lease to extend.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The held job.
    pub job: JobId,
    /// The right to it.
    pub token: LeaseToken,
    /// The lease lasts at least this long from now on.
    pub lease: Duration,
    /// Recorded with it, in place of what was there.
    pub progress: Option<Progress>,
}

/// What became of one renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The job is still held.
    Held {
        /// The lease's end by the store's clock.
        until: Timestamp,
        /// Whether somebody asked to cancel the job (S5).
        cancel_requested: bool,
    },
    /// The job is not held under this token; nothing changed (C2).
    Lost,
}
