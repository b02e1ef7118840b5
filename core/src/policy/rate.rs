use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// Into how many slices a span is cut where more than that may be used in it. What is used in a slice counts as used
/// at its end, which makes the rate a little slower, and never faster.
const SLICES: u32 = 64;

/// At most so many in any span of this length, by the store's clock (clause F8).
///
/// All of them may come at once; then there is room again when that is the span ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub limit: u32,
    /// How long the span is.
    pub per: Duration,
}

impl Rate {
    /// So many per span.
    pub const fn new(limit: u32, per: Duration) -> Self {
        Self { limit, per }
    }

    /// The moment that a use at this one counts as.
    fn counted_at(self, at: Timestamp) -> Timestamp {
        let slice = i64::try_from(self.per.as_millis() / u128::from(SLICES)).unwrap_or(i64::MAX);
        if self.limit <= SLICES || slice < 2 {
            return at;
        }
        let over = at.as_millis().rem_euclid(slice);
        if over == 0 { at } else { at.plus(Duration::from_millis((slice - over).unsigned_abs())) }
    }
}

/// How much of a rate was used lately, as its register says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// How many counted by when, the earliest first.
    used: Vec<(Timestamp, u32)>,
    /// What was reserved and may still be used, until when.
    reserved: Vec<(Uuid, Timestamp, u32)>,
}

/// What a rate has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// So many, at least one.
    Left(u32),
    /// None now; some once this time has passed, unless others use it.
    After(Duration),
}

impl Usage {
    /// Forgets what is longer ago than the span.
    fn forget(&mut self, rate: Rate, hour: Timestamp) {
        let counts = |at: Timestamp| at.plus(rate.per) > hour;
        self.used.retain(|(at, _)| counts(*at));
        self.reserved.retain(|(_, until, _)| counts(*until));
    }

    /// What the rate has to give at this hour. Where all that is left is reserved by others, `soon` is when to look
    /// again, since they may give it back at any time.
    pub fn room(&mut self, rate: Rate, hour: Timestamp, soon: Duration) -> Room {
        self.forget(rate, hour);
        let sum = |counts: &mut dyn Iterator<Item = u32>| counts.fold(0, u32::saturating_add);
        let used = sum(&mut self.used.iter().map(|(_, count)| *count));
        let reserved = sum(&mut self.reserved.iter().map(|(_, _, count)| *count));
        match rate.limit.saturating_sub(used).saturating_sub(reserved) {
            0 => Room::After(self.wait(rate, hour, if used < rate.limit { soon } else { Duration::MAX })),
            left => Room::Left(left),
        }
    }

    fn wait(&self, rate: Rate, hour: Timestamp, soon: Duration) -> Duration {
        let moments = self.used.iter().map(|(at, _)| *at).chain(self.reserved.iter().map(|of| of.1));
        let first = moments.min().map_or(rate.per, |at| at.plus(rate.per).since(hour));
        first.max(Duration::from_millis(1)).min(soon)
    }

    /// Counts so many at this moment, none of which is used later than that.
    pub fn take(&mut self, rate: Rate, at: Timestamp, count: u32) {
        if count == 0 {
            return;
        }
        let at = rate.counted_at(at);
        let place = self.used.partition_point(|(other, _)| *other <= at);
        match self.used[..place].last_mut().filter(|(other, _)| *other == at) {
            Some((_, counted)) => *counted = counted.saturating_add(count),
            None => self.used.insert(place, (at, count)),
        }
    }

    /// Reserves so many, which may be used until then.
    pub fn reserve(&mut self, id: Uuid, until: Timestamp, count: u32) {
        self.reserved.push((id, until, count));
    }

    /// Counts so many of what was reserved under this id as used by this moment, and gives the rest back. Answers
    /// whether it was still reserved.
    pub fn settle(&mut self, rate: Rate, id: Uuid, at: Timestamp, used: u32) -> bool {
        let Some(place) = self.reserved.iter().position(|of| of.0 == id) else { return false };
        let (_, until, count) = self.reserved.remove(place);
        self.take(rate, at.min(until), used.min(count));
        true
    }

    /// When nothing of it counts any more.
    pub fn expires(&self, rate: Rate, hour: Timestamp) -> Timestamp {
        let moments = self.used.iter().map(|(at, _)| *at).chain(self.reserved.iter().map(|of| of.1));
        moments.max().unwrap_or(hour).plus(rate.per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::new(3, Duration::from_secs(1));
    const SOON: Duration = Duration::from_millis(100);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn gives_its_number_at_once_and_more_when_that_is_the_span_ago() {
        let mut usage = Usage::default();
        for (hour, left) in [(0, 3), (0, 2), (400, 1)] {
            assert_eq!(usage.room(RATE, at(hour), SOON), Room::Left(left));
            usage.take(RATE, at(hour), 1);
        }
        assert_eq!(usage.room(RATE, at(500), SOON), Room::After(Duration::from_millis(500)));
        assert_eq!(usage.room(RATE, at(999), SOON), Room::After(Duration::from_millis(1)));
        assert_eq!(usage.room(RATE, at(1_000), SOON), Room::Left(2));
        assert_eq!(usage.room(RATE, at(1_400), SOON), Room::Left(3));
        assert_eq!(usage, Usage::default(), "what is over is forgotten");
    }

    #[test]
    fn counts_what_is_reserved_until_it_is_settled_or_over() {
        let (mut usage, a, b) = (Usage::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        usage.reserve(a, at(5_000), 2);
        assert_eq!(usage.room(RATE, at(0), SOON), Room::Left(1));
        usage.reserve(b, at(5_000), 1);
        assert_eq!(usage.room(RATE, at(0), SOON), Room::After(SOON));
        assert!(usage.settle(RATE, a, at(10), 1));
        assert!(!usage.settle(RATE, a, at(10), 1), "a repetition");
        assert_eq!(usage.room(RATE, at(20), SOON), Room::Left(1));
        assert_eq!(usage.room(RATE, at(1_010), SOON), Room::Left(2), "b was lost and still counts");
        assert_eq!(usage.room(RATE, at(5_999), SOON), Room::Left(2));
        assert_eq!(usage.expires(RATE, at(0)), at(6_000));
        assert_eq!(usage.room(RATE, at(6_000), SOON), Room::Left(3));
    }

    #[test]
    fn never_gives_more_than_its_number_in_any_span_and_stays_small() {
        let rate = Rate::new(1_000, Duration::from_secs(1));
        let (mut usage, mut given) = (Usage::default(), Vec::new());
        let mut dice = fastrand::Rng::with_seed(7);
        let mut now = 0;
        for _ in 0..20_000 {
            now += dice.i64(0..3);
            if let Room::Left(left) = usage.room(rate, at(now), SOON) {
                let count = dice.u32(1..=left.min(5));
                usage.take(rate, at(now + dice.i64(0..2)), count);
                given.extend(std::iter::repeat_n(now, count as usize));
            }
            assert!(usage.used.len() <= SLICES as usize + 2);
        }
        let most = given
            .iter()
            .enumerate()
            .map(|(i, from)| given[i..].iter().take_while(|moment| **moment < from + 1_000).count());
        assert!(most.max() <= Some(1_000));
        assert!(given.len() as i64 > now * 9 / 10, "it is little slower: {} in {now} ms", given.len());
    }
}
