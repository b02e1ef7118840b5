//! Jobs go from one store to another, of any kind, while producers and workers are busy on both: moved or copied.
//!
//! A job that moves is withdrawn from its store, so that nobody is given it there; it is admitted by the other one as it was;
//! then it is deleted where it came from (clause P8). Whatever a move that was cut off left behind is withdrawn, and the next
//! one begins with it: it is nowhere lost, and runs nowhere twice. See `docs/decisions/0018-moving-between-stores.md`.

mod account;
mod carry;
mod copy;
mod leave;
mod rest;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use account::Account;

use super::lock::LockGuard;
use super::store::Store;
use super::stride::Stride;
use super::wake::jittered;
use crate::backend::{Filter, Registers, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{FlowId, JobId};
use crate::limits::Limits;
use crate::name::RegisterName;

/// How many jobs go at once.
const BATCH: usize = 500;
/// For how long nobody else moves jobs of a store from which a mover died.
const LEASE: Duration = Duration::from_secs(5);
/// How long it waits until it looks again for what still runs.
const POLL: Duration = Duration::from_millis(500);
/// The lock that a mover holds in the store from which it takes jobs.
const LOCK: &str = "leasehold move";

impl Store {
    /// Moves jobs to another store: all of them, unless it is told [which](Transfer::only), in every state, with their logs;
    /// and with all of them queue settings, schedules and flows. Nothing happens before it [runs](Transfer::run).
    ///
    /// What runs is left to its worker until it has ended, and so are the jobs of a flow that goes on: they move once the flow
    /// has ended.
    pub fn move_to(&self, other: &Store) -> Transfer {
        Transfer::new(self, other, Kind::Move)
    }

    /// Copies jobs to another store, and leaves these as they are. What waits, and what runs, is [parked](crate::Due::PARKED)
    /// there and schedules are paused, so that nothing runs in both.
    pub fn copy_to(&self, other: &Store) -> Transfer {
        Transfer::new(self, other, Kind::Copy)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Move,
    Copy,
}

/// Jobs on their way from one store to another.
#[derive(Debug, Clone)]
#[must_use = "nothing goes anywhere until it runs"]
pub struct Transfer {
    from: Store,
    to: Store,
    kind: Kind,
    filter: Filter,
    patience: Option<Duration>,
    stop: CancellationToken,
}

impl Transfer {
    fn new(from: &Store, to: &Store, kind: Kind) -> Self {
        let (from, to, filter) = (from.clone(), to.clone(), Filter::default());
        Self { from, to, kind, filter, patience: None, stop: CancellationToken::new() }
    }

    /// Takes only jobs that match. With a filter that names nothing but queues, the settings and schedules of these come
    /// along; with any other nothing does.
    pub fn only(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Sets for how long a move waits for what still runs, once nothing else is left. Defaults to as long as it takes.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Ends it between two batches, with its account, when this is cancelled.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Does it, and tells after each batch how far it has come. It may be dropped, or its process killed, at any moment, and
    /// be run again: it goes on where it was.
    ///
    /// A move goes over the store again and again until it finds nothing: what comes in meanwhile goes too.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if somebody else moves jobs out of the store, or did within the last 5 s and died;
    /// [`InvalidInput`](ErrorKind::InvalidInput) if both are the same store, and this and [`TooLarge`](ErrorKind::TooLarge) if
    /// the other store's limits are narrower; those of either store.
    pub async fn run(self, mut told: impl FnMut(&Account) + Send) -> Result<Account> {
        let mut trip = Trip::begin(self).await?;
        let done = trip.go(&mut told).await;
        if let Some(guard) = trip.guard.take() {
            // One that was lost frees itself.
            let _ = guard.release().await;
        }
        done?;
        told(&trip.account);
        Ok(trip.account)
    }
}

/// A transfer under way.
struct Trip {
    order: Transfer,
    guard: Option<LockGuard>,
    account: Account,
    /// Jobs whose unique keys others hold at the other store: they stay.
    held: HashSet<JobId>,
    /// Whether flows go on, as of this time round.
    flows: HashMap<FlowId, bool>,
    stride: Stride,
}

/// Sees to it that nobody else moves jobs out of a store.
async fn lock(store: &Store) -> Result<LockGuard> {
    let lock = store.lock(LOCK)?.lease(LEASE).wait(LEASE + POLL);
    lock.acquire().await.map_err(|error| match error.kind() {
        ErrorKind::Conflict => {
            let why = "somebody else is moving jobs out of this store; let that end, or stop it, and run this again";
            Error::new(ErrorKind::Conflict, why).caused_by(error)
        }
        _ => error,
    })
}

/// Whether two handles lead to one store, by whatever URL: whether the lock of the one is that of the other.
async fn are_one(from: &Store, to: &Store) -> Result<bool> {
    let seen = async |store: &Store| {
        let request = Registers::named(Space::Lock, RegisterName::new(LOCK)?);
        let page = store.backend().registers(store.deadline(), request).await?;
        Ok::<_, Error>(page.registers.into_iter().next().map(|register| register.version))
    };
    // It may be renewed between two looks.
    let (before, there, after) = (seen(from).await?, seen(to).await?, seen(from).await?);
    Ok(there.is_some() && (there == before || there == after))
}

impl Trip {
    async fn begin(order: Transfer) -> Result<Self> {
        let guard = match order.kind {
            Kind::Move => Some(lock(&order.from).await?),
            Kind::Copy => None,
        };
        if guard.is_some() && are_one(&order.from, &order.to).await? {
            let why =
                "both are the same store: what is moved out of it would be taken for what was there already";
            return Err(Error::invalid(why));
        }
        let (account, held, flows) = (Account::default(), HashSet::new(), HashMap::new());
        Ok(Self { order, guard, account, held, flows, stride: Stride::default() })
    }

    async fn go(&mut self, told: &mut (dyn FnMut(&Account) + Send)) -> Result<()> {
        if self.brings_along() {
            self.bring_queues().await?;
            // Before the jobs, so that no more of them come in here.
            self.bring_schedules().await?;
        }
        match self.order.kind {
            Kind::Copy => {
                let ended = self.begin_round().await?;
                self.copy_jobs(told).await?;
                self.bring_flows(ended).await?;
            }
            Kind::Move => self.move_jobs(told).await?,
        }
        Ok(())
    }

    async fn move_jobs(&mut self, told: &mut (dyn FnMut(&Account) + Send)) -> Result<()> {
        let mut quiet: Option<Instant> = None;
        loop {
            let before = self.account.gone();
            let ended = self.begin_round().await?;
            self.take_leftovers(told).await?;
            self.take_waiting(told).await?;
            self.take_ended(told).await?;
            self.bring_flows(ended).await?;
            self.count_what_runs().await?;
            told(&self.account);
            if self.is_stopped() || (self.account.gone() == before && self.account.busy() == 0) {
                return Ok(());
            }
            if self.account.gone() > before {
                quiet = None;
                continue;
            }
            let since = *quiet.get_or_insert_with(Instant::now);
            if self.order.patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Ok(());
            }
            tokio::select! {
                () = self.order.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(jittered(POLL)) => {}
            }
        }
    }

    /// Whether all there is goes.
    fn is_whole(&self) -> bool {
        self.order.filter == Filter::default()
    }

    /// Whether what belongs to queues goes with their jobs.
    fn brings_along(&self) -> bool {
        let queues = self.order.filter.queues.clone();
        self.order.filter == Filter { queues, ..Filter::default() }
    }

    fn is_stopped(&self) -> bool {
        self.order.stop.is_cancelled()
    }

    /// Whoever lost the lock writes nothing more: somebody else may have taken the jobs up.
    fn check_lock(&self) -> Result<()> {
        if self.guard.as_ref().is_none_or(LockGuard::is_held) {
            return Ok(());
        }
        let why = "the lock of the store was lost, as by a pause of this process; run it again to go on";
        Err(Error::new(ErrorKind::Conflict, why))
    }

    /// How many jobs go at once.
    fn batch(&self) -> usize {
        let most = |limits: &Limits| limits.batch.min(limits.page);
        let most = BATCH.min(most(self.order.from.limits())).min(most(self.order.to.limits()));
        self.stride.at_most(most).max(1)
    }
}
