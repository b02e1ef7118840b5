//! Where the heads of queues are, as far as this process has seen.
//!
//! The server keeps deleted index entries for minutes, and whoever looks from the start of a queue walks over those
//! of all that was claimed meanwhile. So a claimer that has taken much looks from where it last found the head. What
//! may come to lie before that is marked as such when it is written (see `record::OFF_TURN`) and looked for
//! besides; what is late for other reasons, the next look from the start finds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::Timestamp;
use tokio::time::Instant;

/// From how many jobs taken on it is worth not to look from the start.
const WORTH: usize = 2_000;
/// What was due so recently may still be on its way into the queue.
const SETTLED: Duration = Duration::from_secs(1);
/// How often to look from the start: at most so often, and so seldom that it takes a small part of the time.
const EVERY: Duration = Duration::from_secs(1);
const PART: u32 = 20;
/// Of how many queues and priorities the heads are of use: each makes the server scan a part by itself, and the time that
/// this takes grows by the square of their number.
const PLACES: usize = 32;
/// How many selections are remembered.
const SELECTIONS: usize = 64;

/// Due times of the first jobs that waited, by queue and priority.
pub(crate) type Marks = BTreeMap<(String, i32), Timestamp>;

/// What is remembered of a selection: some queues, kinds and tags.
#[derive(Debug, Clone)]
struct Head {
    marks: Marks,
    taken: usize,
    /// When it was last looked at from the start, and how long that took.
    looked: Option<(Instant, Duration)>,
    /// Whether there was more than was asked for.
    deep: bool,
}

/// The heads that this process knows, by selection.
#[derive(Default)]
pub(crate) struct Heads(Mutex<HashMap<String, Head>>);

impl Heads {
    /// Where to look from; nothing for the start.
    pub(crate) fn marks(&self, selection: &str) -> Option<Marks> {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let head = heads.get(selection)?;
        let (at, took) = head.looked?;
        let fresh = at.elapsed() < EVERY.max(took * PART);
        let few = (1..=PLACES).contains(&head.marks.len());
        (fresh && head.taken >= WORTH && few).then(|| head.marks.clone())
    }

    /// Whether much was taken, and the last look found more than it was asked for: only then is it worth to pass over
    /// what others may be about to take.
    pub(crate) fn is_deep(&self, selection: &str) -> bool {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.get(selection).is_some_and(|head| head.deep && head.taken >= WORTH)
    }

    /// Learns from a look at the head: the first due time by queue and priority, and how long a look from the
    /// start took.
    pub(crate) fn learn(&self, selection: &str, first: Marks, now: Timestamp, whole: Option<Duration>) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() >= SELECTIONS && !heads.contains_key(selection) {
            heads.clear();
        }
        let new = Head { marks: Marks::new(), taken: 0, looked: None, deep: false };
        let head = heads.entry(selection.to_owned()).or_insert(new);
        if head.marks.len() > PLACES {
            head.marks.clear();
        }
        let latest = Timestamp::from_millis(now.as_millis() - SETTLED.as_millis() as i64);
        head.marks.extend(first.into_iter().map(|(place, due)| (place, due.min(latest))));
        if let Some(took) = whole {
            head.looked = Some((Instant::now(), took));
        }
    }

    /// Learns how many jobs a claim took, and whether there may be more.
    pub(crate) fn taken(&self, selection: &str, taken: usize, deep: bool) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = heads.get_mut(selection) {
            head.taken = head.taken.saturating_add(taken);
            head.deep = deep;
        }
    }

    /// Forgets all: something went wrong, and where the heads are is not known.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn first(due: i64) -> Marks {
        Marks::from([(("q".to_owned(), 0), at(due))])
    }

    #[tokio::test(start_paused = true)]
    async fn looks_from_the_start_until_much_was_taken_and_again_after_a_while() {
        let heads = Heads::default();
        heads.learn("a", first(5), at(9_000), Some(Duration::from_millis(100)));
        assert_eq!(heads.marks("a"), None);
        heads.taken("a", WORTH, true);
        assert_eq!(heads.marks("a"), Some(first(5)));
        assert!(heads.marks("b").is_none() && heads.is_deep("a"));
        tokio::time::advance(Duration::from_millis(1_900)).await;
        assert!(heads.marks("a").is_some(), "a look takes 5 % of the time at most");
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(heads.marks("a").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_places_none_is_remembered_until_they_are_few_again() {
        let heads = Heads::default();
        let many = (0..=PLACES as i32).map(|priority| (("q".to_owned(), priority), at(5))).collect();
        heads.learn("a", many, at(9_000), Some(Duration::ZERO));
        heads.taken("a", WORTH, true);
        assert!(heads.marks("a").is_none());
        heads.learn("a", first(6), at(9_000), Some(Duration::ZERO));
        assert_eq!(heads.marks("a"), Some(first(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_just_now_is_never_passed_over() {
        let heads = Heads::default();
        heads.learn("a", first(8_999), at(9_000), Some(Duration::ZERO));
        heads.taken("a", WORTH, true);
        assert_eq!(heads.marks("a"), Some(first(8_000)));
        heads.forget();
        assert!(heads.marks("a").is_none());
    }
}
