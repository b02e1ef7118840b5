//! The verbs of somebody who reaches the store in another way than a plain client: through the layers, over a bad
//! line, or around the contract.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::layer::{Chaos, Faults, Operation};
use leasehold_core::{JobId, Limits, NewJob, Store};

use super::Bench;
use crate::breach::Breach;
use crate::harness::{Place, Reach};

impl Bench {
    /// The handle that programs have: the store behind the standard layers.
    pub(crate) fn store(&self) -> Store {
        Store::with_limits(self.shared_backend(), Limits::default())
    }

    /// The handle of a program whose line meets these faults in these calls, and in all where none is named. It
    /// gives a call up after `patience`.
    pub(crate) fn over_a_line(&self, faults: Faults, calls: &[Operation], patience: Duration) -> Store {
        let line = Chaos::new(self.shared_backend(), faults, fastrand::u64(..));
        let line = if calls.is_empty() { line } else { line.only(calls.iter().copied()) };
        Store::with_limits(Arc::new(line), Limits::default()).patience(patience)
    }

    /// A client of another store, which goes by its own clock.
    pub(crate) async fn in_its_own_time(&self) -> Result<Self, Breach> {
        self.at(self.nowhere_yet()).await
    }

    /// A place that nobody has opened, where the store goes by its own clock.
    pub(crate) fn nowhere_yet(&self) -> Place {
        Place { clock: None, ..Place::of(&self.place.name, &self.place.server) }
    }

    /// A client of the store of this place.
    pub(crate) async fn at(&self, place: Place) -> Result<Self, Breach> {
        let backend = self.harness.open(&place).await?;
        Ok(Self::new(Arc::clone(&self.harness), place, backend, self.seed))
    }

    /// A client of the same store, from which it can be taken away.
    pub(crate) async fn far(&self) -> Result<(Self, Box<dyn Reach>), Breach> {
        let far = self.harness.open_far(&self.place).await?;
        Ok((self.on(far.backend), far.reach))
    }

    /// Makes the record of a waiting job unreadable.
    pub(crate) async fn damage(&self, job: JobId) -> Result<(), Breach> {
        Ok(self.harness.damage(&self.place, job).await?)
    }

    /// Enqueues jobs in a transaction of the caller's.
    pub(crate) async fn enqueue_in_transaction(&self, jobs: Vec<NewJob>, commit: bool) -> Result<(), Breach> {
        Ok(self.harness.enqueue_in_transaction(&self.place, jobs, commit).await?)
    }

    /// All that is shown of URLs with this password in them.
    pub(crate) async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, Breach> {
        Ok(self.harness.shown_of_password(password).await?)
    }
}
