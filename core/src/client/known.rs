use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::store::Store;
use crate::backend::Event;
use crate::name::QueueName;
use crate::policy::Rate;

/// How often a store is asked for its queues at most, by all clones of a handle together.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

const SHORTEST: Duration = Duration::from_millis(1);

/// The queues that are known to be there, for who takes from a root and so from all that lie under it, and their rates.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// When the store was last asked. Held while it is, so that one asks and the others wait for the answer.
    looked: Mutex<Option<Instant>>,
    names: Lock<BTreeSet<QueueName>>,
    rates: Lock<BTreeMap<QueueName, Rate>>,
    /// When leases that ran out were last looked for.
    pub(super) recovered: Lock<Option<Instant>>,
    /// From where on names are taken next where there are more than a claim may name.
    next: Lock<usize>,
}

impl Known {
    fn names(&self) -> MutexGuard<'_, BTreeSet<QueueName>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These queues, and all that lie under roots among them.
    fn meant(&self, asked: &[QueueName]) -> BTreeSet<QueueName> {
        let known = self.names();
        let under = known.iter().filter(|name| asked.iter().any(|asked| asked.means(name)));
        asked.iter().chain(under).cloned().collect()
    }

    /// So many of these, others each time until all have had their turn.
    fn in_turn(&self, mut names: Vec<QueueName>, most: usize) -> Vec<QueueName> {
        if names.len() > most {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let count = names.len();
            names.rotate_left(*next % count);
            *next = (*next + most) % count;
            names.truncate(most);
        }
        names
    }
}

impl Store {
    /// The queues that are meant by these: a root means itself and all that lie under it, as far as they are known.
    pub(crate) async fn meant(&self, asked: &[QueueName]) -> Vec<QueueName> {
        if !asked.iter().any(QueueName::is_root) {
            return asked.to_vec();
        }
        self.look_for_queues(LOOK).await;
        let meant = self.known().meant(asked);
        self.known().in_turn(meant.into_iter().collect(), self.limits().page)
    }

    /// How many claims it takes to ask for all queues that are meant by these.
    pub(crate) fn pages(&self, asked: &[QueueName]) -> usize {
        if !asked.iter().any(QueueName::is_root) {
            return 1;
        }
        self.known().meant(asked).len().div_ceil(self.limits().page.max(1))
    }

    /// Asks the store for its queues, if it was not asked for so long, and tells whether others came to light.
    pub(crate) async fn look_for_queues(&self, since: Duration) -> bool {
        let mut looked = self.known().looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < since) {
            return false;
        }
        let found = self.queues().await;
        *looked = Some(Instant::now());
        match found {
            Ok(found) => {
                *self.known().rates.lock().unwrap_or_else(PoisonError::into_inner) = found
                    .iter()
                    .filter_map(|record| Some((record.queue.clone(), record.settings.rate?)))
                    .collect();
                let found: BTreeSet<QueueName> = found.into_iter().map(|record| record.queue).collect();
                let is_new = !found.is_subset(&self.known().names());
                *self.known().names() = found;
                is_new
            }
            Err(error) => {
                tracing::warn!(%error, "the queues and their rates are not known; going by what was known");
                false
            }
        }
    }

    /// The rates of queues, as they were when the store was last asked.
    pub(super) fn known_rates(&self) -> BTreeMap<QueueName, Rate> {
        self.known().rates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long to wait between two looks for jobs of these queues, if nothing says that some wait: no longer than until the
    /// store may be asked again which queues lie under a root, so that a new one is found within a second.
    pub(crate) fn poll(&self, asked: &[QueueName], poll: Duration) -> Duration {
        if !asked.iter().any(QueueName::is_root) {
            return poll;
        }
        let looked = self.known().looked.try_lock().ok().and_then(|looked| *looked);
        let left = looked.map_or(LOOK, |at| LOOK.saturating_sub(at.elapsed()));
        poll.min(left.max(SHORTEST))
    }

    /// Notes that a queue is there.
    pub(super) fn hear_of(&self, queue: &QueueName) {
        if queue.roots().next().is_some() && !self.known().names().contains(queue) {
            self.known().names().insert(queue.clone());
        }
    }

    /// Whether an event says that jobs may wait in one of these queues, or in one that a root among them means.
    pub(crate) fn may_wait(&self, asked: &[QueueName], event: &Event) -> bool {
        let Event::Waiting { queue } = event else { return false };
        let is_asked = asked.iter().any(|asked| asked.means(queue) || queue.means(asked));
        if is_asked {
            self.hear_of(queue);
        }
        is_asked
    }
}

/// Whose events are to be heard by who takes from these queues: theirs and those of their roots, which tell that a pause is
/// over; or of all, where one of them is a root, since nobody knows which queues it will mean.
pub(crate) fn heard(asked: &[QueueName]) -> Option<Vec<QueueName>> {
    if asked.iter().any(QueueName::is_root) {
        return None;
    }
    let all: BTreeSet<QueueName> = asked.iter().flat_map(|name| name.roots().chain([name.clone()])).collect();
    Some(all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<QueueName> {
        texts.iter().map(|text| QueueName::new(text).expect("a name")).collect()
    }

    #[test]
    fn takes_all_names_in_turn() {
        let (known, all) = (Known::default(), names(&["a", "b", "c", "d", "e"]));
        let taken: Vec<_> = (0..5).flat_map(|_| known.in_turn(all.clone(), 2)).collect();
        assert_eq!(taken, names(&["a", "b", "c", "d", "e", "a", "b", "c", "d", "e"]));
        assert_eq!(known.in_turn(all.clone(), 5), all);
    }

    #[test]
    fn hears_of_what_it_takes_from() {
        assert_eq!(heard(&names(&["b/c", "a"])), Some(names(&["a", "b/", "b/c"])));
        assert_eq!(heard(&names(&["a", "b/"])), None);
    }
}
