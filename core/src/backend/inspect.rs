use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::claim::SetAside;
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
}

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

/// A place in a list: where the next page begins. Opaque; of use only with the list it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

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

    /// How many jobs there are.
    pub fn total(&self) -> u64 {
        self.states.values().sum()
    }
}
