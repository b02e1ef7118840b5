use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::register::Shared;
use super::store::Store;
use super::wake::jittered;
use crate::backend::Space;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::check::span;
use crate::limits;
use crate::name::RegisterName;
use crate::policy::{LeaseTimes, LockState};
use crate::time::Deadline;

/// The first and the longest wait before a lock that is held is looked at again.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A lock that a whole fleet knows by its name: at most one holds it at a time (clause F7).
///
/// ```no_run
/// # async fn example(store: leasehold_core::Store) -> leasehold_core::Result<()> {
/// # async fn write_report(token: u64) {}
/// use std::time::Duration;
///
/// if let Some(guard) = store.lock("nightly report")?.try_acquire().await? {
///     let token = guard.token();
///     guard.run(write_report(token)).await?;
/// }
/// let guard = store.lock("ledger")?.wait(Duration::from_secs(10)).acquire().await?;
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Lock {
    store: Store,
    name: RegisterName,
    lease: Duration,
    wait: Duration,
}

impl Store {
    /// The lock of this name. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `name` is no valid [`RegisterName`].
    pub fn lock<N>(&self, name: N) -> Result<Lock>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        let (lease, wait) = (Duration::from_secs(30), Duration::from_secs(30));
        Ok(Lock { store: self.clone(), name: name.try_into()?, lease, wait })
    }
}

impl Lock {
    /// Sets for how long a holder that died or froze keeps it. It is renewed from a third on, as long as the guard
    /// lives. From 10 ms to 24 h. Defaults to 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long [`acquire`](Self::acquire) waits for it. Defaults to 30 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Takes it, or tells that somebody else has it.
    ///
    /// If this future is dropped while it waits for the store, nobody may have the lock until its lease is over.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a lease out of range; those named at [`Store`]. After an
    /// [`Unknown`](ErrorKind::Unknown) it may be held by nobody until its lease is over.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        span("a lease", self.lease, limits::LEASE)?;
        Ok(self.attempt(Uuid::new_v4()).await?.ok())
    }

    /// Takes it, waiting for it if somebody else has it: looking again after 20 ms, then ever more seldom, up to once
    /// a second, and no sooner than a lease that is not renewed would be over. Who waits longest is not preferred.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if somebody else still had it after the [wait](Self::wait); those of
    /// [`try_acquire`](Self::try_acquire).
    pub async fn acquire(&self) -> Result<LockGuard> {
        span("a lease", self.lease, limits::LEASE)?;
        let (deadline, holder) = (Deadline::after(self.wait), Uuid::new_v4());
        let mut wait = WAITS.0;
        loop {
            let held_for = match self.attempt(holder).await? {
                Ok(guard) => return Ok(guard),
                Err(held_for) => held_for,
            };
            if deadline.has_passed() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("somebody else has the lock {:?}; wait longer or come again", self.name),
                ));
            }
            tokio::time::sleep(jittered(wait).min(held_for).min(deadline.left())).await;
            wait = (wait * 2).min(WAITS.1);
        }
    }

    /// Looks once; if it is held, answers for how long at most.
    async fn attempt(&self, holder: Uuid) -> Result<Result<LockGuard, Duration>> {
        let register = Shared::<LockState>::new(&self.store, Space::Lock, self.name.clone());
        let change = |there: Option<LockState>, hour| {
            let taken = LockState::taken(there.as_ref(), holder, self.lease, hour)?;
            Ok((taken.expires(), taken.clone(), taken.token))
        };
        let (asked_at, taken) = register.change_timed(self.store.deadline(), change).await?;
        let token = match taken {
            Ok(token) => token,
            Err(held_for) => return Ok(Err(held_for)),
        };
        let hold =
            Hold { register, holder, token, lease: self.lease, fence: Fence::new(asked_at, self.lease) };
        if hold.fence.is_over() {
            // It took so long that whoever works under it now might not be alone.
            hold.release().await?;
            return Ok(Err(Duration::from_millis(1)));
        }
        Ok(Ok(LockGuard::new(hold)))
    }
}

/// Until when a holder is sure of its lock, by its own monotonic clock, counted from when it asked (C2a).
#[derive(Clone)]
struct Fence {
    at: Arc<Mutex<Instant>>,
    lost: CancellationToken,
}

impl Fence {
    fn new(asked_at: Instant, lease: Duration) -> Self {
        let at = asked_at + LeaseTimes::of(lease).fence;
        Self { at: Arc::new(Mutex::new(at)), lost: CancellationToken::new() }
    }

    fn at(&self) -> Instant {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_to(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn is_over(&self) -> bool {
        self.lost.is_cancelled() || Instant::now() >= self.at()
    }

    async fn over(&self) {
        while !self.is_over() {
            tokio::select! {
                () = self.lost.cancelled() => {}
                () = tokio::time::sleep_until(self.at()) => {}
            }
        }
        // It does not come back, however late a renewal is answered.
        self.lost.cancel();
    }
}

/// A lock that is held.
struct Hold {
    register: Shared<LockState>,
    holder: Uuid,
    token: u64,
    lease: Duration,
    fence: Fence,
}

impl Hold {
    /// Renews the lease until `done` or until the lock is lost; then gives it back, if it is still its own.
    async fn keep(self, done: CancellationToken) -> Result<bool> {
        let mut renew = Instant::now() + LeaseTimes::of(self.lease).renew;
        loop {
            tokio::select! {
                biased;
                () = done.cancelled() => return self.release().await,
                () = self.fence.over() => {
                    tracing::warn!(lock = %self.register.name(), "a lock was lost: its lease could not be renewed in time");
                    return Ok(false);
                }
                () = tokio::time::sleep_until(renew) => {}
            }
            // Dropped at the fence: what it wrote then is what nobody relies on.
            let renewed = tokio::select! {
                biased;
                () = self.fence.over() => continue,
                renewed = self.renew() => renewed,
            };
            let times = LeaseTimes::of(self.lease);
            match renewed {
                Ok(Some(asked_at)) => {
                    self.fence.move_to(asked_at + times.fence);
                    renew = asked_at + times.renew;
                }
                Ok(None) => {
                    tracing::warn!(lock = %self.register.name(), "a lock was lost: somebody else has it");
                    self.fence.lost.cancel();
                    return Ok(false);
                }
                Err(error) => {
                    tracing::warn!(lock = %self.register.name(), %error, "a lock could not be renewed yet");
                    renew = Instant::now() + jittered(self.lease / 20);
                }
            }
        }
    }

    /// Tells when it was asked for, if it is still its own.
    async fn renew(&self) -> Result<Option<Instant>> {
        let change = |there: Option<LockState>, hour| {
            let renewed = there.and_then(|lock| lock.renewed(self.holder, self.token, self.lease, hour));
            renewed.map(|lock| (lock.expires(), lock, ())).ok_or(())
        };
        // A call that hangs leaves time for another.
        let left = self.fence.at().saturating_duration_since(Instant::now()) / 2;
        let patience = left.clamp(Duration::from_millis(1), Deadline::DEFAULT);
        let (asked_at, renewed) = self.register.change_timed(Deadline::after(patience), change).await?;
        Ok(renewed.ok().map(|()| asked_at))
    }

    /// Tells whether it was still its own.
    async fn release(&self) -> Result<bool> {
        self.fence.lost.cancel();
        let change = |there: Option<LockState>, _| {
            let released = there.and_then(|lock| lock.released(self.holder, self.token));
            released.map(|lock| (lock.expires(), lock, ())).ok_or(())
        };
        Ok(self.register.change(change).await?.is_ok())
    }
}

/// A lock that is held. Its lease is renewed in the background until this is dropped or
/// [released](Self::release); then others may take it.
///
/// Whoever cannot renew it in time has lost it, and knows so before anybody else can have it, by the clock of its own
/// process. What works under it should end then: [`run`](Self::run) sees to that. What cannot be ended, such as a write
/// that is under way to somewhere else, is kept out by its [token](Self::token).
#[must_use = "a lock is given back when its guard is dropped"]
pub struct LockGuard {
    name: RegisterName,
    token: u64,
    fence: Fence,
    done: CancellationToken,
    /// Ends by itself once `done`; it goes on after the guard is dropped, to give the lock back.
    keeping: JoinHandle<Result<bool>>,
}

impl LockGuard {
    fn new(hold: Hold) -> Self {
        let (name, token, fence) = (hold.register.name().clone(), hold.token, hold.fence.clone());
        let done = CancellationToken::new();
        let keeping = tokio::spawn(hold.keep(done.clone()));
        Self { name, token, fence, done, keeping }
    }

    /// The lock's name.
    pub fn name(&self) -> &RegisterName {
        &self.name
    }

    /// The fencing token: greater than that of every holder before this one. Whatever is written under the lock to
    /// a place that remembers the greatest token it saw, and refuses smaller ones, is safe from holders that slept.
    ///
    /// It grows for as long as the lock's record lives, which is a day longer than its latest lease. After that it goes
    /// on from the store's clock in milliseconds, so it also grows then, unless that clock was set back by more.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether it is still held.
    pub fn is_held(&self) -> bool {
        !self.fence.is_over()
    }

    /// Ends when the lock is lost, or given back.
    pub async fn lost(&self) {
        self.fence.over().await;
    }

    /// Does `work` under the lock and gives it back. `work` is dropped where it stands if the lock is lost.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if the lock was lost before `work` was done. That it could not be given back
    /// is no error: its lease ends.
    pub async fn run<T>(self, work: impl Future<Output = T>) -> Result<T> {
        let done = tokio::select! {
            biased;
            () = self.lost() => None,
            done = work => Some(done),
        };
        let Some(done) = done else {
            let why = format!("the lock {:?} was lost; what ran under it was ended", self.name);
            return Err(Error::new(ErrorKind::Conflict, why));
        };
        if let Err(error) = self.release().await {
            tracing::warn!(%error, "a lock could not be given back; its lease ends");
        }
        Ok(done)
    }

    /// Gives it back, and tells whether it was still held. One that was lost meanwhile stays with whoever has it.
    ///
    /// # Errors
    /// Those named at [`Store`]; others may then take it when its lease is over.
    pub async fn release(mut self) -> Result<bool> {
        self.done.cancel();
        let ended = (&mut self.keeping).await;
        ended.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::Internal, "a lock's keeper ended").caused_by(panic))
        })
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", &self.name)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
