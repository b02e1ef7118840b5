use std::sync::atomic::{AtomicUsize, Ordering};

use crate::job::{JobRecord, Payload};

/// How many jobs are read first, before their sizes are known.
const FIRST: usize = 64;
/// About how many bytes one call is to read at most: what takes longer than a call may, could never be read.
const BYTES: usize = 8 << 20;
/// What a record takes beside its payload and its result, about.
const RECORD: usize = 512;
/// How many times as many are read next at most.
const GROWTH: usize = 4;

/// How many jobs one call reads, by how large those were that were read before.
#[derive(Debug)]
pub(super) struct Stride(AtomicUsize);

impl Default for Stride {
    fn default() -> Self {
        Self(AtomicUsize::new(FIRST))
    }
}

impl Stride {
    /// How many are to be read next, and no more than this.
    pub(super) fn at_most(&self, most: usize) -> usize {
        self.0.load(Ordering::Relaxed).min(most)
    }

    /// Notes what was read.
    pub(super) fn saw<'a>(&self, found: impl Iterator<Item = &'a JobRecord>) {
        let of = |job: &JobRecord| RECORD + job.payload.len() + job.result.as_ref().map_or(0, Payload::len);
        let (jobs, bytes) = found.fold((0, 0), |(jobs, bytes), job| (jobs + 1, bytes + of(job)));
        let Some(mean) = usize::checked_div(bytes, jobs) else { return };
        let most = self.0.load(Ordering::Relaxed) * GROWTH;
        self.0.store((BYTES / mean).clamp(1, most), Ordering::Relaxed);
    }
}
