//! How large things may be. Checked once, in front of every store, by [`layer::Check`](crate::layer::Check).

use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest name of a queue, kind, tag or worker, in bytes of UTF-8.
pub const NAME_BYTES: usize = 128;
/// The longest unique key, limit key, name of a schedule, lock or rate, name of a header, class of an error or name of
/// a host, in bytes of UTF-8.
pub const KEY_BYTES: usize = 256;
/// The longest [`Cursor`](crate::backend::Cursor), in bytes.
pub const CURSOR_BYTES: usize = 4_096;
/// Who paused a queue, and why, in bytes each; what is longer is cut, not refused.
pub const NOTE_BYTES: usize = 1_024;
/// How many lines of its own log a worker keeps, and how many bytes each has; what is longer is cut, not refused.
pub const WORKER_LINES: usize = 100;
/// See [`WORKER_LINES`].
pub const WORKER_LINE_BYTES: usize = 1_024;
/// The lowest and highest priority. Bounded so that a store can visit every priority of a queue in a claim.
pub const PRIORITY: RangeInclusive<i16> = -1_000..=1_000;
/// The shortest and longest lease.
pub const LEASE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24);
/// The shortest and longest run of one attempt.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24 * 30);
/// The shortest and longest span of a rate.
pub const RATE_SPAN: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24 * 31);
/// How rarely and how often a worker may look for jobs, or for leases that ran out.
pub const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// How many jobs one worker may run at once.
pub const CONCURRENCY: RangeInclusive<usize> = 1..=100_000;
/// The longest delay, period or retention: a hundred years.
pub const SPAN: Duration = Duration::from_hours(24 * 36_525);
/// How many attempts a job may be given.
pub const ATTEMPTS: u32 = 1_000_000;
/// How long a store remembers the id of a claim that gave out jobs, at least: a claim may be repeated until then.
pub const CLAIM_MEMORY: Duration = Duration::from_mins(10);
/// How many ids of jobs that replaced it a job remembers, the latest ones: an enqueue of such a job may be repeated as long
/// as the job that it replaced is kept and no more than so many others replaced that since.
pub const REPLACEMENTS: usize = 100;
/// How many jobs without room under their limit keys one claim ends at most.
pub const ENDED_BY_A_CLAIM: usize = 1_000;
/// How many failed attempts a job remembers: the first one and the latest others.
pub const HISTORY: usize = 10;

/// How many jobs one flow may have.
pub const FLOW_JOBS: u32 = 1_000_000;
/// How many runs of consecutive jobs all that the jobs of one flow depend on may be: jobs that depend on the same ones, and
/// were added one after the other, count once.
pub const FLOW_LINKS: usize = 4_000_000;

/// Sizes that an installation may choose. A backend trusts that they were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one payload or result. Defaults to 1 MiB.
    pub payload_bytes: usize,
    /// Bytes of all payloads of one enqueue call. Defaults to 64 MiB.
    pub batch_bytes: usize,
    /// Items of one batched call. Defaults to 10,000.
    pub batch: usize,
    /// Items of one page of a list, and of each list of names in a request. Defaults to 1,000.
    pub page: usize,
    /// Tags of one job. Defaults to 32.
    pub tags: usize,
    /// Headers of one job. Defaults to 32.
    pub headers: usize,
    /// Bytes of all headers of one job, names and values. Defaults to 8 KiB.
    pub headers_bytes: usize,
    /// Bytes of a progress message. Defaults to 1 KiB.
    pub progress_bytes: usize,
    /// Bytes of a cursor. Defaults to 16 KiB.
    pub cursor_bytes: usize,
    /// Bytes of a failure's message; a longer one is cut, not refused. Defaults to 8 KiB.
    pub failure_bytes: usize,
    /// Bytes of one log line; a longer one is cut, not refused. Defaults to 8 KiB.
    pub log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: 1 << 20,
            batch_bytes: 64 << 20,
            batch: 10_000,
            page: 1_000,
            tags: 32,
            headers: 32,
            headers_bytes: 8 << 10,
            progress_bytes: 1 << 10,
            cursor_bytes: 16 << 10,
            failure_bytes: 8 << 10,
            log_line_bytes: 8 << 10,
        }
    }
}

/// Cuts `text` to at most `bytes` bytes at a character's edge, with a mark where something was cut off.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    const MARK: &str = "… (cut)";
    if text.len() <= bytes {
        return;
    }
    let keep = text.floor_char_boundary(bytes.saturating_sub(MARK.len()));
    text.truncate(keep);
    text.push_str(MARK);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_a_character() {
        let mut text = "ä".repeat(100);
        cut(&mut text, 50);
        assert!(text.len() <= 50 && text.ends_with("(cut)"), "{text}");
        let mut short = "short".to_owned();
        cut(&mut short, 50);
        assert_eq!(short, "short");
    }
}
