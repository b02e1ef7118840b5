use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use leasehold_core::{JobId, JobOptions, LimitKey, Tag, Timestamp};

/// Where a waiting job stands among those of its priority: by due time, then by id (clause C6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) due: Timestamp,
    pub(crate) id: JobId,
    /// Where its row is.
    pub(crate) slot: usize,
}

/// What a job demands of a claim besides its queue and kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Demand {
    pub(crate) limit: Option<(LimitKey, u32)>,
    /// Whether the job ends rather than waits for room.
    pub(crate) ends: bool,
    pub(crate) tags: BTreeSet<Tag>,
}

impl Demand {
    pub(crate) fn of(options: &JobOptions) -> Self {
        let limit = options.limit.as_ref().map(|limit| (limit.key.clone(), limit.max));
        let ends = options.limit.as_ref().is_some_and(|limit| !limit.when_full.is_wait());
        Self { limit, ends, tags: options.tags.clone() }
    }
}

/// The first job of a group.
pub(crate) type Head = (Place, Demand);

/// The waiting jobs of one queue, priority and kind.
///
/// They are grouped by what they demand, and only the first of each group stands in the index that a claim
/// walks: a million jobs whose limit is reached or whose tags do not match cost it one step, not a million.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    groups: BTreeMap<Demand, BTreeSet<Place>>,
    heads: BTreeSet<Head>,
}

impl Lane {
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    pub(crate) fn insert(&mut self, demand: Demand, place: Place) {
        if let Some(group) = self.groups.get_mut(&demand) {
            let head = group.first().copied();
            group.insert(place);
            match head {
                Some(head) if head < place => return,
                Some(head) => self.heads.remove(&(head, demand.clone())),
                None => false,
            };
        } else {
            self.groups.insert(demand.clone(), BTreeSet::from([place]));
        }
        self.heads.insert((place, demand));
    }

    pub(crate) fn remove(&mut self, demand: Demand, place: Place) {
        let Some(group) = self.groups.get_mut(&demand) else { return };
        let was_head = group.first() == Some(&place);
        group.remove(&place);
        if was_head {
            self.behead((place, demand));
        }
    }

    /// The first group after `passed` that `fits`, if its first job is due.
    pub(crate) fn next(
        &self,
        passed: Option<&Head>,
        now: Timestamp,
        mut fits: impl FnMut(&Demand) -> bool,
    ) -> Option<Head> {
        let from = passed.map_or(Bound::Unbounded, Bound::Excluded);
        let due = self.heads.range((from, Bound::Unbounded)).take_while(|(place, _)| place.due <= now);
        due.into_iter().find(|(_, demand)| fits(demand)).cloned()
    }

    /// Takes up to `most` due jobs of the group of `head` that stand before the next group and before `end`.
    pub(crate) fn take(
        &mut self,
        head: &Head,
        end: Option<Place>,
        most: usize,
        now: Timestamp,
    ) -> Vec<usize> {
        let next_group = self.heads.range((Bound::Excluded(head), Bound::Unbounded)).next();
        let end = end.into_iter().chain(next_group.map(|(place, _)| *place)).min();
        let mut slots = Vec::new();
        let Some(group) = self.groups.get_mut(&head.1) else { return slots };
        while slots.len() < most
            && let Some(place) = group.first()
            && place.due <= now
            && end.is_none_or(|end| *place < end)
        {
            slots.push(place.slot);
            group.pop_first();
        }
        if !slots.is_empty() {
            self.behead(head.clone());
        }
        slots
    }

    /// The jobs of a group, in order.
    pub(crate) fn group(&self, demand: &Demand) -> impl Iterator<Item = &Place> {
        self.groups.get(demand).into_iter().flatten()
    }

    /// When the job that waits longest became due, or will.
    pub(crate) fn first_due(&self) -> Option<Timestamp> {
        self.heads.first().map(|(place, _)| place.due)
    }

    /// The jobs that are due after `now`.
    pub(crate) fn later(&self, now: Timestamp) -> impl Iterator<Item = Place> {
        let groups = self.groups.values();
        groups.flat_map(move |group| group.iter().rev().take_while(move |place| place.due > now).copied())
    }

    /// Brings the heads up to date after `old` was taken out of its group.
    fn behead(&mut self, old: Head) {
        self.heads.remove(&old);
        match self.groups.get(&old.1).and_then(BTreeSet::first) {
            Some(first) => {
                self.heads.insert((*first, old.1));
            }
            None => {
                self.groups.remove(&old.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(due: i64, slot: usize) -> Place {
        Place { due: Timestamp::from_millis(due), id: JobId::generate(), slot }
    }

    #[test]
    fn gives_groups_in_the_order_of_their_jobs() {
        let now = Timestamp::from_millis(100);
        let plain = Demand::default();
        let limited = Demand { limit: Some((LimitKey::new("k").unwrap(), 1)), ..Demand::default() };
        let mut lane = Lane::default();
        for (due, demand) in [(3, &plain), (1, &plain), (2, &limited), (4, &limited), (101, &plain)] {
            lane.insert(demand.clone(), place(due, due as usize));
        }
        let mut taken = Vec::new();
        while let Some(head) = lane.next(None, now, |_| true) {
            taken.extend(lane.take(&head, None, 10, now));
        }
        assert_eq!(taken, [1, 2, 3, 4]);
        assert_eq!(lane.later(now).map(|place| place.slot).collect::<Vec<_>>(), [101]);
        assert_eq!(lane.first_due(), Some(Timestamp::from_millis(101)));
    }

    #[test]
    fn forgets_empty_groups() {
        let mut lane = Lane::default();
        let (first, second) = (place(1, 1), place(2, 2));
        lane.insert(Demand::default(), second);
        lane.insert(Demand::default(), first);
        lane.remove(Demand::default(), first);
        assert_eq!(lane.first_due(), Some(second.due));
        lane.remove(Demand::default(), second);
        assert!(lane.is_empty() && lane.groups.is_empty());
    }
}
