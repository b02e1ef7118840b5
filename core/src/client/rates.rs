use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::rate::{Meter, Reservation};
use super::store::Store;
use crate::backend::Space;
use crate::error::Result;
use crate::name::{QueueName, RegisterName};
use crate::policy::Rate;
use crate::time::Deadline;

/// How soon the settings of queues are looked at again where one of them has a rate, and where none has. A store gives
/// nothing from a queue whose rate is not known yet, so this makes nothing faster.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// For how many times the time of a call permits are held, so that a claim which was not answered in time may be made again.
const TRIES: u32 = 3;

/// The rates of queues, for somebody who claims from them, and the permits for it (clause F8).
#[derive(Debug)]
pub(crate) struct Rates {
    store: Store,
    known: BTreeMap<QueueName, Rate>,
    /// Whether somebody has changed settings since.
    stale: bool,
    /// The queues that have no room, until when there may be some.
    full: BTreeMap<QueueName, Instant>,
}

/// Leave to claim so many jobs from a queue with a rate.
#[derive(Debug)]
pub(crate) struct Permit {
    meter: Meter,
    reservation: Reservation,
}

impl Permit {
    /// For how many jobs.
    pub(crate) fn count(&self) -> usize {
        self.reservation.count as usize
    }

    /// Until when they may be claimed.
    pub(crate) fn until(&self) -> Deadline {
        self.reservation.until
    }

    /// Tells how many were claimed. What is not told counts as claimed as late as it might have been.
    pub(crate) async fn settle(self, claimed: usize) {
        if let Err(error) = self.meter.settle(&self.reservation, claimed).await {
            tracing::warn!(%error, "what a rate had left could not be given back; its queue is slower for a while");
        }
    }
}

impl Rates {
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone(), known: BTreeMap::new(), stale: false, full: BTreeMap::new() }
    }

    /// Looks at the settings of the queues, if that was not done lately by anybody who shares the store's handle.
    pub(crate) async fn look(&mut self) {
        let every = if self.known.is_empty() { LOOK.1 } else { LOOK.0 };
        self.store
            .look_for_queues(if std::mem::take(&mut self.stale) { Duration::ZERO } else { every })
            .await;
        let known = std::mem::replace(&mut self.known, self.store.known_rates());
        // One that was changed may have room now.
        self.full.retain(|queue, _| known.get(queue) == self.known.get(queue));
    }

    /// Somebody changed the settings of a queue.
    pub(crate) fn changed(&mut self) {
        self.stale = true;
    }

    /// Whether the rates have become others, as the store had them when it was last asked.
    pub(crate) fn are_others(&self) -> bool {
        self.store.known_rates() != self.known
    }

    /// Those of the queues that have a rate, each alone, and the others, by turns, so that none always comes last.
    pub(crate) fn apart(&self, queues: Vec<QueueName>, turn: usize) -> Vec<(Vec<QueueName>, bool)> {
        if self.known.is_empty() {
            return vec![(queues, false)];
        }
        let (rated, free): (Vec<_>, Vec<_>) =
            queues.into_iter().partition(|queue| self.known.contains_key(queue));
        let mut all: Vec<_> = rated.into_iter().map(|queue| (vec![queue], true)).collect();
        if !free.is_empty() {
            all.push((free, false));
        }
        let parts = all.len().max(1);
        all.rotate_left(turn % parts);
        all
    }

    /// Leave to claim up to so many jobs from a queue with a rate; none if it has no room now.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub(crate) async fn permit(&mut self, queue: &QueueName, wanted: usize) -> Result<Option<Permit>> {
        let Some(rate) = self.known.get(queue).copied() else { return Ok(None) };
        if self.full.get(queue).is_some_and(|until| *until > Instant::now()) {
            return Ok(None);
        }
        let name = RegisterName::new(queue.as_str())?;
        let meter = Meter::new(&self.store, Space::QueueRate, name, rate);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        match meter.reserve(wanted, self.store.deadline().left() * TRIES).await? {
            Ok(reservation) => {
                self.full.remove(queue);
                Ok(Some(Permit { meter, reservation }))
            }
            Err(after) => {
                self.full.insert(queue.clone(), Instant::now() + after);
                Ok(None)
            }
        }
    }

    /// How long until a queue that has no room may have some.
    pub(crate) fn room_in(&self) -> Option<Duration> {
        let now = Instant::now();
        let ahead = self.full.values().filter(|until| **until > now);
        ahead.map(|until| until.saturating_duration_since(now)).min()
    }
}
