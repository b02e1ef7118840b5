use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A job that does nothing: about 100 bytes of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    number: usize,
    email: String,
    text: String,
}

impl Job {
    /// So many jobs, numbered from 0.
    pub fn all(count: usize) -> Vec<Self> {
        let text = "x".repeat(50);
        let job = |number| Self { number, email: "ann@example.org".into(), text: text.clone() };
        (0..count).map(job).collect()
    }
}

/// Counts how often each job ran, up to 255 times.
#[derive(Debug)]
pub struct Tally {
    runs: Box<[AtomicU8]>,
    never_ran: AtomicUsize,
    all_ran: Notify,
}

/// How many jobs ran how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub once: usize,
    pub more: usize,
    pub never: usize,
}

impl Tally {
    /// For so many jobs, of which none has run.
    pub fn new(jobs: usize) -> Arc<Self> {
        let runs = (0..jobs).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Self { runs, never_ran: AtomicUsize::new(jobs), all_ran: Notify::new() })
    }

    /// Counts one run of this job.
    pub fn ran(&self, job: &Job) {
        let more = |runs: u8| Some(runs.saturating_add(1));
        let before = self.runs[job.number].fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        if before == Ok(0) && self.never_ran.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_ran.notify_one();
        }
    }

    /// Waits until every job has run.
    pub async fn all(&self) {
        while self.never_ran.load(Ordering::Acquire) > 0 {
            self.all_ran.notified().await;
        }
    }

    /// How many jobs ran how often so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for runs in &self.runs {
            match runs.load(Ordering::Acquire) {
                0 => counts.never += 1,
                1 => counts.once += 1,
                _ => counts.more += 1,
            }
        }
        counts
    }
}

impl Counts {
    /// How many jobs ran at least once.
    pub fn ran(&self) -> usize {
        self.once + self.more
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { once: self.once + other.once, more: self.more + other.more, never: self.never + other.never }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_once_from_more_and_never() {
        let (tally, jobs) = (Tally::new(4), Job::all(4));
        for number in [0, 1, 1, 2] {
            tally.ran(&jobs[number]);
        }
        assert_eq!(tally.counts(), Counts { once: 2, more: 1, never: 1 });
        tally.ran(&jobs[3]);
        tally.all().await;
        assert_eq!(tally.counts().ran(), 4);
    }
}
