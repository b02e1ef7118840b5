use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::claim::SetAside;
use crate::error::{Error, Result};
use crate::id::{JobId, WorkerId};
use crate::job::{JobRecord, Reason, State};
use crate::name::{Kind, QueueName, Tag};
use crate::time::Timestamp;

/// Asks for jobs by id.
#[derive(Debug, Clone, Default)]
pub struct Find {
    /// The ids.
    pub ids: Vec<JobId>,
}

/// Which jobs. Every field that is set must match; an empty filter matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Filter {
    /// In any of these queues.
    pub queues: Option<Vec<QueueName>>,
    /// In any of these states.
    pub states: Option<Vec<State>>,
    /// For any of these reasons.
    pub reasons: Option<Vec<Reason>>,
    /// Of any of these kinds.
    pub kinds: Option<Vec<Kind>>,
    /// With all of these tags.
    pub tags: Option<Vec<Tag>>,
    /// Run, now or last, by this worker.
    pub worker: Option<WorkerId>,
    /// Whose latest failure is of this class.
    pub error_class: Option<String>,
    /// Whose payload has this text in it, letter by letter.
    pub payload_contains: Option<String>,
    /// Enqueued at this moment or later.
    pub enqueued_from: Option<Timestamp>,
    /// Enqueued at this moment or earlier.
    pub enqueued_until: Option<Timestamp>,
}

impl Filter {
    /// Whether `job` matches: the definition, for backends that cannot let their store decide.
    pub fn matches(&self, job: &JobRecord) -> bool {
        fn any<T: PartialEq>(wanted: Option<&Vec<T>>, has: &T) -> bool {
            wanted.is_none_or(|wanted| wanted.contains(has))
        }
        let contains = |text: &String| {
            text.is_empty() || job.payload.as_bytes().windows(text.len()).any(|part| part == text.as_bytes())
        };
        any(self.queues.as_ref(), &job.queue)
            && any(self.states.as_ref(), &job.state)
            && self.reasons.as_ref().is_none_or(|wanted| job.reason.is_some_and(|has| wanted.contains(&has)))
            && any(self.kinds.as_ref(), &job.kind)
            && self.tags.as_ref().is_none_or(|tags| tags.iter().all(|tag| job.options.tags.contains(tag)))
            && self.worker.is_none_or(|worker| job.worker == Some(worker))
            && self
                .error_class
                .as_ref()
                .is_none_or(|class| job.last_failure().is_some_and(|f| f.class == *class))
            && self.payload_contains.as_ref().is_none_or(contains)
            && self.enqueued_from.is_none_or(|from| job.enqueued_at >= from)
            && self.enqueued_until.is_none_or(|until| job.enqueued_at <= until)
    }

    /// The ages of the jobs that a list of them has still to look at, that after which it goes on among them; none
    /// if there are none.
    pub fn ages(&self, order: Order, after: Option<Age>) -> Option<RangeInclusive<Age>> {
        let mut first = (self.enqueued_from.unwrap_or_default(), JobId::from_uuid(Uuid::nil()));
        let mut last = (self.enqueued_until.unwrap_or(Timestamp::MAX), JobId::from_uuid(Uuid::max()));
        match order {
            Order::OldestFirst => first = after.map_or(first, |after| after.max(first)),
            Order::NewestFirst => last = after.map_or(last, |after| after.min(last)),
        }
        (first <= last).then_some(first..=last)
    }
}

/// A job's place in every list: when the store took it in, and its id. It never changes.
pub type Age = (Timestamp, JobId);

/// The order of a list: by when the store took the jobs in, then by id, which never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Newest first.
    #[default]
    NewestFirst,
    /// Oldest first.
    OldestFirst,
}

impl Order {
    const fn mark(self) -> &'static str {
        match self {
            Self::NewestFirst => "n",
            Self::OldestFirst => "o",
        }
    }
}

/// A place in a list: where the next page begins. Opaque; of use only with the list it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

impl Cursor {
    /// A cursor that goes on after a job of this age, for stores that find their jobs by it.
    pub fn after(order: Order, (at, job): Age) -> Self {
        Self(format!("{}{}.{job}", order.mark(), at.as_millis()))
    }

    /// The age that it goes on after.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is not one that [`after`](Self::after) wrote for a list
    /// in this order.
    pub fn age(&self, order: Order) -> Result<Age> {
        let parse = || {
            let (at, job) = self.0.strip_prefix(order.mark())?.split_once('.')?;
            Some((Timestamp::from_millis(at.parse().ok()?), job.parse().ok()?))
        };
        let why = "the cursor is not of this list; use one that the same list returned, or none to begin";
        parse().ok_or_else(|| Error::invalid(why))
    }
}

/// Asks for a page of jobs.
#[derive(Debug, Clone)]
pub struct List {
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// From where on; none for the first page.
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: usize,
}

/// A page of jobs.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// Records of the page that cannot be read (B3).
    pub unreadable: Vec<SetAside>,
    /// Where the next page begins; none on the last. A store that looks at a bounded number of records per
    /// call may return a short page, even an empty one, with more to come.
    pub next: Option<Cursor>,
}

impl Page {
    /// Shows a record, or that it cannot be read.
    pub fn push(&mut self, read: Result<JobRecord, SetAside>) {
        match read {
            Ok(job) => self.jobs.push(job),
            Err(bad) => self.unreadable.push(bad),
        }
    }
}

/// Asks for counts.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Of these queues; none for all.
    pub queues: Option<Vec<QueueName>>,
}

/// The counts of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueCounts {
    /// The queue.
    pub queue: QueueName,
    /// Its jobs by state; a state without jobs may be missing.
    pub states: BTreeMap<State, u64>,
    /// How many jobs were ever taken in, or moved in.
    pub enqueued: u64,
    /// How many were deleted, pruned, or moved out.
    pub deleted: u64,
    /// When the longest waiting due job became due.
    pub oldest_due: Option<Timestamp>,
}

impl QueueCounts {
    /// No jobs.
    pub fn empty(queue: QueueName) -> Self {
        Self { queue, states: BTreeMap::new(), enqueued: 0, deleted: 0, oldest_due: None }
    }

    /// How many jobs are in `state`.
    pub fn of(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// How many were taken in and neither wait nor run any more: they have ended, or left.
    pub fn done(&self) -> u64 {
        let open: u64 =
            [State::Scheduled, State::Queued, State::Running].map(|state| self.of(state)).iter().sum();
        self.enqueued.saturating_sub(open)
    }

    /// How many jobs there are.
    pub fn total(&self) -> u64 {
        self.states.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_one_list() {
        let age = (Timestamp::from_millis(-7), JobId::generate());
        let cursor = Cursor::after(Order::OldestFirst, age);
        assert_eq!(cursor.age(Order::OldestFirst).unwrap(), age);
        for cursor in [cursor, Cursor("'; --".into()), Cursor("n1".into()), Cursor("n1.x".into())] {
            assert_eq!(cursor.age(Order::NewestFirst).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn what_is_still_to_be_looked_at_is_within_the_filter() {
        let at = |millis| Timestamp::from_millis(millis);
        let age = |millis| (at(millis), JobId::from_uuid(Uuid::from_u128(1)));
        let filter = Filter { enqueued_from: Some(at(5)), enqueued_until: Some(at(9)), ..Filter::default() };
        let oldest = |after| filter.ages(Order::OldestFirst, after).unwrap();
        assert!(oldest(None).contains(&age(5)) && oldest(None).contains(&age(9)));
        assert!(!oldest(None).contains(&age(4)) && !oldest(None).contains(&age(10)));
        assert_eq!(oldest(Some(age(7))).start(), &age(7));
        assert_eq!(filter.ages(Order::NewestFirst, Some(age(7))).unwrap().end(), &age(7));
        assert_eq!(filter.ages(Order::OldestFirst, Some(age(10))), None);
    }
}
