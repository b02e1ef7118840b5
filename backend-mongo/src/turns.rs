//! Lets a few claims of this process at the server at a time, each at a place of its own.
//!
//! Claimers that fight for the head of a queue slow each other down. Those of one process need not: they take
//! turns, and each that is under way looks a whole batch further down than the one before it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many claims are under way at once: where the throughput of one server is at its best
/// (`docs/decisions/0004-mongodb-shape.md`).
const AT_ONCE: usize = 4;

pub(crate) struct Turns {
    free: Semaphore,
    /// One bit for each place that is taken.
    places: AtomicUsize,
}

impl Default for Turns {
    fn default() -> Self {
        Self { free: Semaphore::new(AT_ONCE), places: AtomicUsize::new(0) }
    }
}

impl Turns {
    /// Waits for a turn; whoever came first is first.
    pub(crate) async fn enter(&self) -> Turn<'_> {
        let permit = self.free.acquire().await.ok();
        let mut place = 0;
        let take = |places: usize| {
            place = places.trailing_ones() as usize;
            Some(places | 1 << place)
        };
        let _ = self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Turn { turns: self, place, _permit: permit }
    }
}

/// A turn. It ends when it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    /// How many batches down to look: 0 for one that is alone.
    pub(crate) place: usize,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.places.fetch_and(!(1 << self.place), Ordering::Relaxed);
    }
}

/// How many whole batches other processes are ahead, by the misses seen lately.
#[derive(Default)]
pub(crate) struct Crowd(AtomicUsize);

impl Crowd {
    /// How far down a claimer looks at most.
    const MOST: usize = 16;

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Learns from how many of the candidates that were found were taken.
    pub(crate) fn learn(&self, found: usize, taken: usize) {
        let (crowd, missed) = (self.get(), found.saturating_sub(taken));
        if missed * 4 > found {
            self.0.store((crowd + 1).min(Self::MOST), Ordering::Relaxed);
        } else if missed == 0 && crowd > 0 && fastrand::u8(..8) == 0 {
            self.0.store(crowd - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_has_a_place_of_its_own_and_no_more_are_let_in() {
        let turns = Turns::default();
        let mut inside = Vec::new();
        for place in 0..AT_ONCE {
            let turn = turns.enter().await;
            assert_eq!(turn.place, place);
            inside.push(turn);
        }
        assert!(turns.enter().now_or_never().is_none());
        inside.remove(1);
        assert_eq!(turns.enter().await.place, 1);
    }
}
