use serde::{Deserialize, Serialize};

/// How much a store in memory may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// Jobs in the store, ended ones included; one more is refused as
    /// [`Full`](leasehold_core::ErrorKind::Full). Defaults to 10,000,000.
    pub jobs: usize,
    /// Log lines of one job; the oldest go first. Defaults to 1,000.
    pub log_lines_per_job: usize,
    /// Bytes of the log of one job, where each line counts as its message and 64 bytes; the oldest go first.
    /// Defaults to 1 MiB.
    pub log_bytes_per_job: usize,
    /// Bytes of all logs, counted in the same way; the oldest go first. Defaults to 64 MiB.
    pub log_bytes: usize,
    /// Events that a reader of [`watch`](leasehold_core::Backend::watch) may be behind before it gets a
    /// [`Gap`](leasehold_core::backend::Event::Gap); at least 1, at most 1,048,576. Defaults to 1,024.
    pub events: usize,
    /// Jobs that one call looks at for a filter before it answers with a short page. Defaults to 10,000.
    pub looks: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            jobs: 10_000_000,
            log_lines_per_job: 1_000,
            log_bytes_per_job: 1 << 20,
            log_bytes: 64 << 20,
            events: 1_024,
            looks: 10_000,
        }
    }
}
