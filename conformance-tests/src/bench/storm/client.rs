use std::collections::HashMap;
use std::sync::Arc;

use fastrand::Rng;
use leasehold_core::backend::{Answer, Claim, ExpiredLease, Renewed, Settlement, Verdict};
use leasehold_core::layer::Chaos;
use leasehold_core::{Backend, JobId, Keep, LeaseToken, LeasedJob, NewJob, Reason, UniqueScope};
use tokio::sync::RwLock;

use super::{BATCHES, CLIENTS, JOBS, LEASE, STEPS, Storm, Time, queues};
use crate::bench::{Bench, SUCCEED, drop_after, kind, limit_key, lines, secs, settlement, text, unique_key};
use crate::breach::{Done, Kept, Trouble};
use crate::history::{Journal, MemorySink, Recorder};

/// A client that produces, works, recovers and operates, as the dice fall.
pub(crate) struct Client {
    pub(super) t: Bench,
    pub(super) journal: Journal,
    time: Arc<RwLock<Time>>,
    /// Whether it is stopped in the end, and neither forgets nor gives up anything; the others vanish.
    stops: bool,
    storm: Storm,
    pub(super) dice: Rng,
    pub(super) held: Vec<LeasedJob>,
    pub(super) asleep: Vec<LeasedJob>,
    pub(super) lost: Vec<ExpiredLease>,
    pub(super) added: Vec<JobId>,
    /// How many lines it has certainly written under each lease.
    logged: HashMap<LeaseToken, u64>,
}

impl Client {
    pub(super) async fn new(
        t: &Bench,
        storm: &Storm,
        number: usize,
        sink: &MemorySink,
        time: Arc<RwLock<Time>>,
    ) -> Done<Self> {
        let seed = fastrand::u64(..);
        let client = t.another().await?;
        let line: Arc<dyn Backend> = Arc::new(Chaos::new(client.shared_backend(), storm.faults, seed));
        let recorder = Recorder::wrap(line, &format!("w{number}#1"), Arc::new(sink.clone()));
        let journal = recorder.journal().clone();
        let recorded = client.on(Arc::new(recorder));
        Ok(Self { stops: number % 2 == 1, ..Self::recorded(recorded, journal, time, *storm, seed) })
    }

    /// A client in a process that does not move the clock.
    pub(crate) fn elsewhere(t: &Bench, journal: &Journal, storm: Storm, seed: u64) -> Self {
        let time = Time::moved_elsewhere(journal, t.clock());
        Self::recorded(t.clone(), journal.clone(), time, storm, seed)
    }

    fn recorded(t: Bench, journal: Journal, time: Arc<RwLock<Time>>, storm: Storm, seed: u64) -> Self {
        let (held, asleep, lost, added) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let dice = Rng::with_seed(seed);
        let logged = HashMap::new();
        Self { t, journal, time, stops: false, storm, dice, held, asleep, lost, added, logged }
    }

    pub(super) async fn work(mut self) -> Kept {
        for number in 0..STEPS {
            self.step(number).await?;
        }
        if self.stops {
            self.stop().await?;
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
            15 => self.tick_or_look().await?,
            _ => {}
        }
        if self.dice.u8(..8) == 0 {
            Time::pass(&self.time, 1).await?;
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Makes a call; one of which nothing is known is made again, for as long as this client cares.
    pub(super) async fn call<T, F: Future<Output = Done<T>>>(
        &mut self,
        call: impl Fn(Bench) -> F,
    ) -> Done<Option<T>> {
        loop {
            let work = call(self.t.clone());
            let answer = if self.storm.drops && self.dice.u8(..6) == 0 {
                drop_after(self.dice.usize(1..6), work).await
            } else {
                Some(work.await)
            };
            match answer {
                Some(Ok(answer)) => return Ok(Some(answer)),
                Some(Err(Trouble::Store(error))) if error.is_transient() => {}
                Some(Err(trouble)) => return Err(trouble),
                None => {}
            }
            if !self.stops && self.dice.u8(..4) == 0 {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn produce(&mut self) -> Done {
        let jobs: Vec<NewJob> = (0..JOBS / CLIENTS / BATCHES).map(|_| some_job(&mut self.dice)).collect();
        self.added.extend(jobs.iter().map(|job| job.id));
        self.call(|t| {
            let jobs = jobs.clone();
            async move { t.enqueue(jobs).await }
        })
        .await?;
        Ok(())
    }

    async fn claim(&mut self) -> Done {
        let [main, aside] = queues();
        let queues = match self.dice.u8(..6) {
            0 => vec![main],
            1 => vec![aside],
            _ => vec![main, aside],
        };
        let mut claim = Claim::new(self.t.worker, queues, self.dice.usize(1..=4), LEASE);
        claim.min_priority = (self.dice.u8(..8) == 0).then_some(0);
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
            3 if !self.stops && self.dice.bool() => Ok(()),
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
        let written = self.logged.get(&lease.token).copied().unwrap_or(0);
        // Now and then it says again what it has said before.
        let position = if self.dice.bool() { written } else { self.dice.u64(..=written) };
        let answer = self.call(|t| log(t, lease.clone(), position)).await?;
        if answer.is_some() {
            self.logged.insert(lease.token, written.max(position + LINES));
        }
        if answer != Some(Answer::Lost) {
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
            _ => {
                let elsewhere = self.dice.u8(..3) == 0;
                let queue = elsewhere.then(|| queues()[usize::from(self.dice.bool())].clone());
                Verdict::Retry { reason: Reason::Error, delay, queue }
            }
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
}

/// A job of any sort: some share a unique key, some a limit, for which some of them wait and some end.
fn some_job(dice: &mut Rng) -> NewJob {
    let [main, aside] = queues();
    let job = NewJob::new(kind("work"), text(&format!("{{ \"n\": {}.0 }}", dice.u32(..))))
        .queue(if dice.u8(..3) == 0 { aside } else { main })
        .priority(dice.i16(-1..=1))
        .delay(secs(dice.u64(..20)))
        .max_attempts(dice.u32(2..=5))
        .crash_budget(dice.u32(1..=3));
    let job = if dice.u8(..4) == 0 { job.keep(Keep::For(secs(dice.u64(..20)))) } else { job };
    match dice.u8(..8) {
        0 => job.unique(unique_key("first"), UniqueScope::UntilFinished),
        1 => job.unique(unique_key("second"), UniqueScope::UntilClaimed),
        2 => job.unique(unique_key("third"), UniqueScope::For(secs(dice.u64(1..10)))),
        3 => job.limit(limit_key("limit"), dice.u32(1..=3)),
        4 => job.limit_or_end(limit_key("limit"), dice.u32(1..=3)),
        _ => job,
    }
}

async fn renew(t: Bench, lease: LeasedJob) -> Done<Renewed> {
    t.renew(&lease, LEASE).await
}

/// How many lines a holder writes at once.
const LINES: u64 = 2;

/// Writes the lines that a holder always writes at this position.
async fn log(t: Bench, lease: LeasedJob, position: u64) -> Done<Answer> {
    let lines = lines((position..position + LINES).map(|line| format!("line {line} of {}", lease.token)));
    t.log(&lease, position, lines).await
}

async fn settle(t: Bench, settlement: Settlement) -> Done<Answer> {
    t.settle_this(settlement).await
}
