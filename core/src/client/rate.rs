use std::time::Duration;

use uuid::Uuid;

use super::register::Shared;
use super::store::Store;
use crate::backend::Space;
use crate::error::Result;
use crate::layer::check;
use crate::name::RegisterName;
use crate::policy::{Rate, Room, Usage};
use crate::time::{Deadline, Timestamp};

/// How far ahead of the hour a use is counted at first, as a part of the span: not less than a store takes to write it
/// down, and not more than a call may take.
const AHEAD: u32 = 32;
const AHEADS: (Duration, Duration) = (Duration::from_millis(20), Deadline::DEFAULT);

/// What a rate answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go on: so many were left, this one included.
    Granted {
        /// How many, at least 1.
        left: u32,
    },
    /// Not now.
    Refused {
        /// There is room again after this time, unless others use it.
        after: Duration,
    },
}

impl Admission {
    /// Whether the action may be done.
    pub fn is_granted(self) -> bool {
        matches!(self, Self::Granted { .. })
    }
}

impl Store {
    /// Asks whether one more action of this key may be done, of which the whole fleet does at most `limit` in any span
    /// of the length `per` by the store's clock (clause F8). The answer is good for now, not for later.
    ///
    /// All `limit` actions may be done at once; there is room again when that is the span ago, and a 32nd of it, from
    /// 20 ms to 5 s: an action is counted as late as it may still be done, and a store that took longer to write it
    /// down is asked again. With another span a key is another one. A key that is not used is forgotten.
    ///
    /// ```no_run
    /// # async fn example(store: leasehold_core::Store) -> leasehold_core::Result<()> {
    /// # async fn call_the_api() {}
    /// use std::time::Duration;
    /// use leasehold_core::client::Admission;
    ///
    /// match store.rate_limit("api of ann@example.org", 10, Duration::from_secs(1)).await? {
    ///     Admission::Granted { .. } => call_the_api().await,
    ///     Admission::Refused { after } => println!("try again in {after:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a key that is no valid name, a limit of 0 or a span out of
    /// range; [`Conflict`](crate::ErrorKind::Conflict) if others were always quicker until the deadline; those named at
    /// [`Store`]. What was asked for and not answered counts as used.
    pub async fn rate_limit(&self, key: &str, limit: u32, per: Duration) -> Result<Admission> {
        let rate = Rate::new(limit, per);
        check::rate(rate)?;
        // Of two spans the shorter one would forget what the longer one still counts.
        let name = RegisterName::new(format!("{key} per {} ms", per.as_millis()))?;
        Meter::new(self, Space::Rate, name, rate).take().await
    }
}

/// What was reserved of a rate, to be settled.
#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    id: Uuid,
    /// How many, at least 1.
    pub(crate) count: u32,
    /// Nothing of it may be used after that, by this process's clock.
    pub(crate) until: Deadline,
}

/// A rate, and the register in which its use is kept.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    register: Shared<Usage>,
    rate: Rate,
}

impl Meter {
    pub(crate) fn new(store: &Store, space: Space, name: RegisterName, rate: Rate) -> Self {
        Self { register: Shared::new(store, space, name), rate }
    }

    /// Uses one, if there is room.
    ///
    /// It is counted as used somewhat later than the hour that was read. Where it took longer than that to write it
    /// down, it is not used: whoever was held up would act when its use is forgotten too soon.
    async fn take(&self) -> Result<Admission> {
        let mut ahead = (self.rate.per / AHEAD).clamp(AHEADS.0, AHEADS.1);
        let deadline = self.register.deadline();
        loop {
            let change = |usage: Option<Usage>, hour: Timestamp| {
                let mut usage = usage.unwrap_or_default();
                match usage.room(self.rate, hour, Duration::MAX) {
                    Room::After(after) => Err(after),
                    Room::Left(left) => {
                        usage.take(self.rate, hour.plus(ahead), 1);
                        Ok((usage.expires(self.rate, hour), usage, left))
                    }
                }
            };
            let (began, taken) = self.register.change_timed(deadline, change).await?;
            match taken {
                Err(after) => return Ok(Admission::Refused { after }),
                Ok(left) if began.elapsed() <= ahead => return Ok(Admission::Granted { left }),
                Ok(_) => ahead = (ahead * 2).max(began.elapsed() * 2),
            }
        }
    }

    /// Reserves up to so many, which may be used within `hold`; or tells when to look again.
    pub(crate) async fn reserve(&self, wanted: u32, hold: Duration) -> Result<Result<Reservation, Duration>> {
        /// How soon to look again where others may give back what they reserved.
        const SOON: Duration = Duration::from_millis(100);
        let id = Uuid::new_v4();
        let change = |usage: Option<Usage>, hour: Timestamp| {
            let mut usage = usage.unwrap_or_default();
            match usage.room(self.rate, hour, SOON) {
                Room::After(after) => Err(after),
                Room::Left(left) => {
                    let count = left.min(wanted);
                    usage.reserve(id, hour.plus(hold), count);
                    Ok((usage.expires(self.rate, hour), usage, count))
                }
            }
        };
        let (began, reserved) = self.register.change_timed(self.register.deadline(), change).await?;
        Ok(reserved.map(|count| Reservation { id, count, until: Deadline::at(began + hold) }))
    }

    /// Counts what was used of a reservation, from now on, and gives back the rest.
    pub(crate) async fn settle(&self, reservation: &Reservation, used: usize) -> Result<()> {
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        let change = |usage: Option<Usage>, hour: Timestamp| {
            let mut usage = usage.ok_or(())?;
            let settled = usage.settle(self.rate, reservation.id, hour, used);
            settled.then(|| (usage.expires(self.rate, hour), usage, ())).ok_or(())
        };
        self.register.change(change).await.map(drop)
    }
}
