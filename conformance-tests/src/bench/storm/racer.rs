//! One client of a storm.

use std::sync::Arc;

use fastrand::Rng;
use leasehold_core::backend::{Action, Answer, Claim, ExpiredLease, Renewed, Settlement, Verdict};
use leasehold_core::{Due, JobId, LeasedJob, NewJob, QueueName, Reason};
use tokio::sync::RwLock;

use super::{BATCHES, JOBS, STEPS, Storm, Time, WORKERS, recovery};
use crate::bench::{Bench, SUCCEED, kind, lines, secs, settlement, text};
use crate::breach::{Done, Kept, Trouble};
use crate::history::Journal;

/// How long it asks for, which is soon over.
const LEASE: std::time::Duration = secs(20);

/// A client that produces, works, recovers and operates, as the dice fall.
pub(crate) struct Racer {
    t: Bench,
    journal: Journal,
    time: Arc<RwLock<Time>>,
    storm: Storm,
    dice: Rng,
    held: Vec<LeasedJob>,
    asleep: Vec<LeasedJob>,
    lost: Vec<ExpiredLease>,
    added: Vec<JobId>,
}

impl Racer {
    /// A client that is recorded already, and may be told to drop its calls.
    pub(super) fn new(t: Bench, journal: Journal, time: Arc<RwLock<Time>>, storm: Storm, seed: u64) -> Self {
        let (held, asleep, lost, added) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { t, journal, time, storm, dice: Rng::with_seed(seed), held, asleep, lost, added }
    }

    /// A client in a process that does not move the clock.
    pub(crate) fn elsewhere(t: &Bench, journal: &Journal, storm: Storm, seed: u64) -> Self {
        let time = Time::moved_elsewhere(journal, t.clock());
        Self::new(t.clone(), journal.clone(), time, storm, seed)
    }

    /// Takes so many steps.
    pub(super) async fn race(mut self, steps: usize) -> Kept {
        for step in 0..steps {
            self.step(step).await?;
        }
        Ok(())
    }

    /// Does one thing, as the dice fall, and every so often produces jobs.
    pub(crate) async fn step(&mut self, number: usize) -> Done {
        if number.is_multiple_of(STEPS / BATCHES) {
            self.produce().await?;
        }
        match self.dice.u8(..16) {
            0..=3 => self.claim().await?,
            4..=9 => self.handle().await?,
            10 => self.wake().await?,
            11 => self.read_lost().await?,
            12..=13 => self.recover().await?,
            14 if self.storm.operators => self.operate().await?,
            _ => {}
        }
        if self.dice.u8(..8) == 0 {
            Time::pass(&self.time, 1).await?;
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Makes a call; one of which nothing is known is made again, for as long as this client cares.
    async fn call<T, F: Future<Output = Done<T>>>(&mut self, call: impl Fn(Bench) -> F) -> Done<Option<T>> {
        loop {
            let work = call(self.t.clone());
            let answer = if self.storm.drops && self.dice.u8(..6) == 0 {
                crate::bench::drop_after(self.dice.usize(1..6), work).await
            } else {
                Some(work.await)
            };
            match answer {
                Some(Ok(answer)) => return Ok(Some(answer)),
                Some(Err(Trouble::Store(error))) if error.is_transient() => {}
                Some(Err(trouble)) => return Err(trouble),
                None => {}
            }
            if self.dice.u8(..4) == 0 {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn produce(&mut self) -> Done {
        let new = |dice: &mut Rng| {
            NewJob::new(kind("work"), text(&format!("{{ \"n\": {}.0 }}", dice.u32(..))))
                .priority(dice.i16(-1..=1))
                .delay(secs(dice.u64(..20)))
                .max_attempts(dice.u32(2..=5))
                .crash_budget(dice.u32(1..=3))
        };
        let jobs: Vec<NewJob> = (0..JOBS / WORKERS / BATCHES).map(|_| new(&mut self.dice)).collect();
        self.added.extend(jobs.iter().map(|job| job.id));
        self.call(|t| {
            let jobs = jobs.clone();
            async move { t.enqueue(jobs).await }
        })
        .await?;
        Ok(())
    }

    async fn claim(&mut self) -> Done {
        let claim = Claim::new(self.t.worker, [QueueName::default()], self.dice.usize(1..=4), LEASE);
        let time = Arc::clone(&self.time);
        let stands = time.read().await;
        let leases = self
            .call(|t| {
                let claim = claim.clone();
                async move { t.claim_as(claim).await }
            })
            .await?;
        drop(stands);
        for lease in leases.unwrap_or_default() {
            self.journal.start(lease.job.id, lease.token)?;
            // A sleeper sleeps through its lease and works on when it wakes, as if nothing had been.
            let sleeps = self.dice.u8(..5) == 0;
            if sleeps { self.asleep.push(lease) } else { self.held.push(lease) }
        }
        Ok(())
    }

    async fn handle(&mut self) -> Done {
        if self.held.is_empty() {
            return Ok(());
        }
        let lease = self.held.swap_remove(self.dice.usize(..self.held.len()));
        match self.dice.u8(..8) {
            0..=1 => self.renew(lease).await,
            2 => self.log(lease).await,
            // It forgets the job, as a worker does that dies.
            3 if self.dice.bool() => Ok(()),
            _ => self.settle(lease).await,
        }
    }

    async fn wake(&mut self) -> Done {
        if self.asleep.is_empty() {
            return Ok(());
        }
        let lease = self.asleep.swap_remove(self.dice.usize(..self.asleep.len()));
        match self.dice.u8(..3) {
            0 => self.renew(lease).await,
            1 => self.log(lease).await,
            _ => self.settle(lease).await,
        }
    }

    async fn renew(&mut self, lease: LeasedJob) -> Done {
        let renewed = self.call(|t| renew(t, lease.clone())).await?;
        if renewed != Some(Renewed::Lost) {
            self.held.push(lease);
        }
        Ok(())
    }

    async fn log(&mut self, lease: LeasedJob) -> Done {
        let position = self.dice.u64(..3);
        let logged = self.call(|t| log(t, lease.clone(), position)).await?;
        if logged != Some(Answer::Lost) {
            self.held.push(lease);
        }
        Ok(())
    }

    async fn settle(&mut self, lease: LeasedJob) -> Done {
        let delay = secs(self.dice.u64(..10));
        let spent = lease.job.attempt >= lease.job.options.max_attempts;
        let verdict = match self.dice.u8(..8) {
            0..=3 => SUCCEED,
            4 => Verdict::Fail { reason: Reason::Error },
            5 => Verdict::Release { reason: Reason::Released, delay },
            _ if spent => Verdict::Fail { reason: Reason::MaxAttempts },
            _ => Verdict::Retry { reason: Reason::Error, delay },
        };
        self.journal.effect(lease.job.id, lease.token)?;
        let settlement = settlement(&lease, verdict);
        // Some say it twice, though they were answered.
        for _ in 0..self.dice.usize(1..=2) {
            self.call(|t| settle(t, settlement.clone())).await?;
        }
        self.journal.end(lease.job.id, lease.token)?;
        Ok(())
    }

    /// Reads lost leases, to take them back some time later.
    async fn read_lost(&mut self) -> Done {
        let lost = self.call(|t| async move { t.expired(5).await }).await?;
        self.lost.extend(lost.unwrap_or_default());
        Ok(())
    }

    async fn recover(&mut self) -> Done {
        for _ in 0..3 {
            let Some(last) = self.lost.len().checked_sub(1) else { return Ok(()) };
            let lease = self.lost.swap_remove(self.dice.usize(..=last));
            self.call(|t| recover(t, recovery(&lease))).await?;
        }
        Ok(())
    }

    async fn operate(&mut self) -> Done {
        if self.added.is_empty() {
            return Ok(());
        }
        let job = self.added[self.dice.usize(..self.added.len())];
        let due = Due::In(secs(self.dice.u64(..10)));
        let action = match self.dice.u8(..6) {
            0..=1 => Action::Cancel,
            2..=3 => Action::Requeue { due },
            4 => Action::Postpone { due },
            _ => Action::Delete,
        };
        self.call(|t| amend(t, job, action.clone())).await?;
        Ok(())
    }
}

async fn renew(t: Bench, lease: LeasedJob) -> Done<Renewed> {
    t.renew(&lease, LEASE).await
}

async fn log(t: Bench, lease: LeasedJob, position: u64) -> Done<Answer> {
    t.log(&lease, position, lines(["a line", "another"])).await
}

async fn settle(t: Bench, settlement: Settlement) -> Done<Answer> {
    t.settle_this(settlement).await
}

async fn recover(t: Bench, recovery: Settlement) -> Done<Vec<Answer>> {
    t.recover_all(vec![recovery]).await
}

async fn amend(t: Bench, job: JobId, action: Action) -> Done {
    t.amend(job, action).await.map(drop)
}
