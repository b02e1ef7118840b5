//! Many clients that do all at once what clients do, and do it badly: they forget jobs, sleep through leases,
//! repeat themselves and give up. What they did is recorded and judged.

use std::sync::Arc;

use fastrand::Rng;
use leasehold_core::backend::{Action, Answer, Claim, ExpiredLease, Renewed, Settlement, Verdict};
use leasehold_core::layer::{Chaos, Faults};
use leasehold_core::policy::{Backoff, RetryPolicy, after_expiry};
use leasehold_core::{Backend, Due, JobId, LeasedJob, ManualClock, NewJob, QueueName, Reason};
use tokio::sync::RwLock;

use super::{Bench, SUCCEED, kind, lines, secs, settlement, text};
use crate::breach::{Breach, Done, Kept, Trouble, must};
use crate::history::{Journal, MemorySink, Recorder, Rules, check};

const JOBS: usize = 240;
const WORKERS: usize = 8;
const STEPS: usize = 120;
/// How often each worker produces.
const BATCHES: usize = 10;
const LEASE: std::time::Duration = secs(20);

/// What sort of weather it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Storm {
    /// How many requests and answers are lost.
    pub(crate) faults: Faults,
    /// Whether operators change jobs meanwhile.
    pub(crate) operators: bool,
    /// Whether callers drop their calls before the answer comes.
    pub(crate) drops: bool,
}

/// Lets the storm rage, waits until every job has ended, and judges what was recorded.
pub(crate) async fn rage(t: &Bench, storm: Storm) -> Kept {
    let sink = MemorySink::default();
    let ground = Recorder::wrap(t.shared_backend(), "ground", Arc::new(sink.clone()));
    let journal = ground.journal().clone();
    journal.manual_clock(t.clock())?;
    let time = Arc::new(RwLock::new(Time { journal: journal.clone(), clock: t.clock().clone() }));
    let mut tasks = Vec::new();
    for number in 0..WORKERS {
        let worker = Worker::new(t, &storm, number, &sink, Arc::clone(&time)).await?;
        tasks.push(tokio::spawn(worker.work()));
    }
    for task in tasks {
        task.await??;
    }
    drain(&t.on(Arc::new(ground)), &time).await?;
    journal.last_look(t.another().await?.backend()).await?;
    let lossy = storm.faults.reply_lost > 0.0 || storm.drops;
    let rules = Rules::drained(JOBS / 2).losses(3).unknown(if lossy { 5 } else { 0 });
    let repeats = storm.faults.repeated > 0.0;
    let verdict = check(&sink.events(), &if repeats { rules.repeats_inside() } else { rules });
    must!(verdict.is_valid(), "in a {storm:?}: {verdict}");
    Ok(())
}

/// The clock, which one client at a time may move, and none while a claim is under way: whoever repeats a claim
/// does so within its lease, since what it was given may be somebody else's by then.
struct Time {
    journal: Journal,
    clock: ManualClock,
}

impl Time {
    async fn pass(time: &RwLock<Self>, seconds: u64) -> Done {
        let time = time.write().await;
        Ok(time.journal.advance(&time.clock, secs(seconds))?)
    }
}

/// Lets every lease run out and every wait end, until all jobs have ended.
async fn drain(t: &Bench, time: &RwLock<Time>) -> Kept {
    for _ in 0..1_000 {
        Time::pass(time, 600).await?;
        for lost in t.expired(500).await? {
            t.recover_all(vec![recovery(&lost)]).await?;
        }
        for lease in t.claim(500).await? {
            t.finish(&lease, SUCCEED).await?;
        }
        let counts = t.counts().await?;
        let alive: u64 = leasehold_core::State::ALL
            .into_iter()
            .filter(|state| !state.is_terminal())
            .map(|state| counts.of(state))
            .sum();
        if alive == 0 {
            return Ok(());
        }
    }
    Err(Breach::new("after the storm jobs are left that never end"))
}

fn recovery(lost: &ExpiredLease) -> Settlement {
    let policy = RetryPolicy::new(Backoff::Fixed { delay: secs(2) });
    let decision = after_expiry(lost, &policy, 0.0);
    Settlement { job: lost.job, token: lost.token, verdict: decision.verdict, failure: decision.failure }
}

/// A client that produces, works, recovers and operates, as the dice fall.
struct Worker {
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

impl Worker {
    async fn new(
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
        let (dice, t) = (Rng::with_seed(seed), client.on(Arc::new(recorder)));
        let (held, asleep, lost, added) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { t, journal, time, storm: *storm, dice, held, asleep, lost, added })
    }

    async fn work(mut self) -> Kept {
        for step in 0..STEPS {
            if step % (STEPS / BATCHES) == 0 {
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
        }
        Ok(())
    }

    /// Makes a call; one of which nothing is known is made again, for as long as this client cares.
    async fn call<T, F: Future<Output = Done<T>>>(&mut self, call: impl Fn(Bench) -> F) -> Done<Option<T>> {
        loop {
            let work = call(self.t.clone());
            let answer = if self.storm.drops && self.dice.u8(..6) == 0 {
                super::drop_after(self.dice.usize(1..6), work).await
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

    async fn produce(&mut self) -> Kept {
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

    async fn claim(&mut self) -> Kept {
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

    async fn handle(&mut self) -> Kept {
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

    async fn wake(&mut self) -> Kept {
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

    async fn renew(&mut self, lease: LeasedJob) -> Kept {
        let renewed = self.call(|t| renew(t, lease.clone())).await?;
        if renewed != Some(Renewed::Lost) {
            self.held.push(lease);
        }
        Ok(())
    }

    async fn log(&mut self, lease: LeasedJob) -> Kept {
        let position = self.dice.u64(..3);
        let logged = self.call(|t| log(t, lease.clone(), position)).await?;
        if logged != Some(Answer::Lost) {
            self.held.push(lease);
        }
        Ok(())
    }

    async fn settle(&mut self, lease: LeasedJob) -> Kept {
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
    async fn read_lost(&mut self) -> Kept {
        let lost = self.call(|t| async move { t.expired(5).await }).await?;
        self.lost.extend(lost.unwrap_or_default());
        Ok(())
    }

    async fn recover(&mut self) -> Kept {
        for _ in 0..3 {
            let Some(last) = self.lost.len().checked_sub(1) else { return Ok(()) };
            let lease = self.lost.swap_remove(self.dice.usize(..=last));
            self.call(|t| recover(t, recovery(&lease))).await?;
        }
        Ok(())
    }

    async fn operate(&mut self) -> Kept {
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
