//! The child's side: it opens the place, and does what its parent says until its parent is gone.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use leasehold_core::backend::{Answer, Claim, Renewed, Settlement};
use leasehold_core::layer::{Chaos, Cuts, Faults};
use leasehold_core::policy::BoxError;
use leasehold_core::worker::{Attempt, RawOptions};
use leasehold_core::{
    Clock, JobId, LeaseToken, LeasedJob, Limits, LockGuard, ManualClock, QueueName, Store, SystemClock,
    UniqueScope, Worker,
};

use super::order::{Ending, Order, Role, Said};
use crate::bench::{
    Bench, CHAOS, Client, LOST_ATTEMPT, SUCCEED, Storm, in_time, job, lines, retry_in, secs, settlement,
    unique_key,
};
use crate::breach::Done;
use crate::cases::flows::{FAIL, LOOK};
use crate::cases::raw::FAILS;
use crate::harness::{Harness, Place};
use crate::history::{FileSink, Journal, Recorder};

/// Plays the part that the environment tells, to the end.
pub(crate) fn play(role: &Role, harness: Arc<dyn Harness>) -> ExitCode {
    die_with_parent();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(&Said::Broke(format!("no runtime: {error}"))),
    };
    let mut child = match runtime.block_on(Child::open(role, harness)) {
        Ok(child) => child,
        Err(why) => return say(&Said::Broke(why)),
    };
    say(&Said::Ready);
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let said = match serde_json::from_str(&line) {
            Ok(order) => {
                runtime.block_on(child.obey(order)).unwrap_or_else(|why| Said::Broke(format!("{why:?}")))
            }
            Err(error) => Said::Broke(format!("{line}: {error}")),
        };
        say(&said);
    }
    ExitCode::SUCCESS
}

/// Says a line at once. A parent that is gone is not owed one.
fn say(said: &Said) -> ExitCode {
    let line = serde_json::to_string(said).unwrap_or_default();
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// A child that was frozen cannot see that its parent is gone.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Ends this process as SIGKILL does: nothing is flushed, nothing said.
fn die() {
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort();
}

/// Stops this process, once, as SIGSTOP does, until its parent lets it go on.
fn fall_asleep(slept: &AtomicBool) {
    if !slept.swap(true, Ordering::SeqCst) {
        say(&Said::Step);
        #[cfg(unix)]
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    }
}

struct Child {
    t: Bench,
    journal: Journal,
    chaos: Arc<Chaos>,
    cuts: Arc<Cuts>,
    held: Vec<LeasedJob>,
    guard: Option<LockGuard>,
    rager: Option<Client>,
}

impl Child {
    /// Opens the store as the role says: recorded, and over a line that can be bad.
    async fn open(role: &Role, harness: Arc<dyn Harness>) -> Result<Self, String> {
        let clock = role.clock.as_ref().map(ManualClock::in_file).transpose().map_err(|e| e.to_string())?;
        let place = Place { name: role.place.clone(), clock, server: role.server.clone() };
        let backend = harness.open(&place).await.map_err(|why| why.to_string())?;
        let sink = FileSink::append(&role.history).map_err(|error| error.to_string())?;
        let cuts = Arc::new(Cuts::new(backend));
        let chaos = Arc::new(Chaos::new(cuts.clone(), Faults::default(), role.seed));
        let recorder = Recorder::wrap(chaos.clone(), &role.process, Arc::new(sink));
        let journal = recorder.journal().clone();
        let t = Bench::new(harness, place, Arc::new(recorder), 0);
        Ok(Self { t, journal, chaos, cuts, held: Vec::new(), guard: None, rager: None })
    }

    async fn obey(&mut self, order: Order) -> Done<Said> {
        Ok(match order {
            Order::DieAt(point) => {
                arm(&point, die)?;
                Said::Ready
            }
            Order::SleepAt(point) => {
                let slept = AtomicBool::new(false);
                arm(&point, move || fall_asleep(&slept))?;
                Said::Ready
            }
            Order::Take(plan) => Said::Answers(plan.take(&self.t, &self.cuts).await?),
            Order::Work => Said::Count(work(&self.t).await?),
            Order::WorkRaw => work_raw(&self.t).await?,
            Order::WorkFlows => work_flows(&self.t).await?,
            Order::Rage { seed, steps, chaos } => self.rage(seed, steps, chaos).await?,
            Order::Produce(keys) => Said::Jobs(self.produce(&keys).await?),
            Order::ProduceLater(seconds) => Said::Jobs(self.produce_later(seconds).await?),
            Order::Claim(limit, seconds) => {
                let claim = Claim::new(self.t.worker, [QueueName::default()], limit, secs(seconds));
                let given = self.t.claim_as(claim).await?;
                let said = Said::Leases(given.iter().map(|lease| (lease.job.id, lease.token)).collect());
                self.held.extend(given);
                said
            }
            Order::Renew => Said::Answers(self.renew().await?),
            Order::Log => Said::Answers(self.log().await?),
            Order::Settle(ending) => {
                let verdict = match ending {
                    Ending::Succeed => SUCCEED,
                    Ending::RetryIn(seconds) => retry_in(secs(seconds)),
                };
                let settlements = self.held.iter().map(|lease| settlement(lease, verdict.clone()));
                Said::Answers(self.t.settle_all(settlements.collect()).await?)
            }
            Order::Drop => {
                self.held.clear();
                Said::Done
            }
            Order::Recover => {
                let lost = self.t.expired(500).await?;
                let leases = lost.into_iter().map(|lost| (lost.job, lost.token));
                Said::Answers(self.seize(leases).await?)
            }
            Order::Seize(leases) => Said::Answers(self.seize(leases).await?),
            Order::Hours => {
                let store = self.t.backend().now(in_time(0)).await?;
                Said::Hours(store, SystemClock.now())
            }
            Order::Lock(name, seconds) => {
                let store = Store::with_limits(self.t.shared_backend(), Limits::default());
                let guard = store.lock(name)?.lease(secs(seconds)).try_acquire().await?;
                let token = guard.as_ref().map(LockGuard::token);
                self.guard = guard.or(self.guard.take());
                Said::Token(token)
            }
            Order::Unlock => match self.guard.take() {
                Some(guard) => Said::Count(u64::from(guard.release().await?)),
                None => Said::Count(0),
            },
            Order::Fire(looks) => {
                let schedules = Store::with_limits(self.t.shared_backend(), Limits::default()).schedules();
                for look in 1..=looks {
                    schedules.fire_due().await?;
                    say(&Said::Count(look));
                }
                Said::Done
            }
            Order::Recur(seconds) => Said::Count(recur(&self.t, secs(seconds)).await?),
            Order::Consume(queue) => Said::Count(self.consume(queue).await?),
        })
    }

    async fn rage(&mut self, seed: u64, steps: usize, chaos: bool) -> Done<Said> {
        self.chaos.set(if chaos { CHAOS } else { Faults::default() });
        let rager = match &mut self.rager {
            Some(rager) => rager,
            none => none.insert(Client::elsewhere(&self.t, &self.journal, Storm::default(), seed)),
        };
        for step in 0..steps {
            rager.step(step).await?;
            say(&Said::Step);
        }
        Ok(Said::Done)
    }

    async fn consume(&self, queue: String) -> Done<u64> {
        let store = Store::with_limits(self.t.shared_backend(), Limits::default());
        let mut consumer = store.queue(queue)?.consumer();
        let mut given = 0;
        while let Some(held) = consumer.next().await? {
            given += 1;
            held.complete(None).await?;
        }
        Ok(given)
    }

    async fn produce(&self, keys: &[String]) -> Done<Vec<JobId>> {
        let mut created = Vec::new();
        for key in keys {
            let new = job().unique(unique_key(key), UniqueScope::UntilFinished);
            let answer = &self.t.enqueue([new]).await?[0];
            created.extend(answer.is_created().then_some(answer.job));
        }
        Ok(created)
    }

    async fn produce_later(&self, seconds: u64) -> Done<Vec<JobId>> {
        self.t.add_all([job(), job().delay(secs(seconds))]).await
    }

    async fn renew(&self) -> Done<Vec<Answer>> {
        let mut answers = Vec::new();
        for lease in &self.held {
            answers.push(match self.t.renew(lease, lease.lease).await? {
                Renewed::Held { .. } => Answer::Applied,
                Renewed::Lost => Answer::Lost,
            });
        }
        Ok(answers)
    }

    async fn log(&self) -> Done<Vec<Answer>> {
        let mut answers = Vec::new();
        for lease in &self.held {
            answers.push(self.t.log(lease, 0, lines(["a line"])).await?);
        }
        Ok(answers)
    }

    async fn seize(&self, leases: impl IntoIterator<Item = (JobId, LeaseToken)>) -> Done<Vec<Answer>> {
        let recovery = |(job, token)| Settlement { job, token, verdict: LOST_ATTEMPT, failure: None };
        self.t.recover_all(leases.into_iter().map(recovery).collect()).await
    }
}

#[cfg(feature = "failpoints")]
fn arm(point: &str, act: impl Fn() + Send + Sync + 'static) -> Done {
    Ok(leasehold_core::failpoints::arm(point, act)?)
}

#[cfg(not(feature = "failpoints"))]
fn arm(point: &str, _: impl Fn() + Send + Sync + 'static) -> Done {
    Err(crate::breach::Trouble::Unmet(format!("{point}: built without failpoints")))
}

/// Runs the payloads of a raw queue until none is due, and says each. Some fail when they are first run.
async fn work_raw(t: &Bench) -> Done<Said> {
    async fn handle(attempt: Attempt) -> Result<(), BoxError> {
        let payload = std::str::from_utf8(attempt.job().payload.as_bytes())?.parse()?;
        say(&Said::Count(payload));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (every, rest) = FAILS;
        // One that failed is a job of its own from then on.
        if payload % every == rest && attempt.store().find(attempt.id()).await?.is_none() {
            return Err("not yet".into());
        }
        Ok(())
    }
    let store = Store::with_limits(t.shared_backend(), Limits::default());
    let worker = Worker::builder(&store).concurrency(2).handle_raw("raw", RawOptions::default(), handle);
    worker.until_idle().build()?.run().await;
    Ok(Said::Done)
}

/// Runs the jobs of flows until none is due, and says each. One that is told to fails; one that is told to look fails if
/// something that it waited for has not ended.
async fn work_flows(t: &Bench) -> Done<Said> {
    async fn handle(attempt: Attempt) -> Result<(), BoxError> {
        let index = attempt.flow().map_or(u64::MAX, |member| u64::from(member.index));
        say(&Said::Count(index));
        tokio::time::sleep(Duration::from_millis(1)).await;
        match attempt.job().payload.as_bytes() {
            FAIL => Err("as it was told".into()),
            LOOK => {
                let parents = attempt.parents().try_collect::<Vec<_>>().await?;
                let open = parents.iter().filter(|job| !job.state.is_terminal()).count();
                if open == 0 { Ok(()) } else { Err(format!("{open} jobs before it have not ended").into()) }
            }
            _ => Ok(()),
        }
    }
    let store = Store::with_limits(t.shared_backend(), Limits::default());
    let worker =
        Worker::builder(&store).concurrency(4).prefetch(4).handle("work", handle).until_idle().build()?;
    worker.run().await;
    Ok(Said::Done)
}

/// Runs a real worker that fires schedules, for so long.
async fn recur(t: &Bench, time: Duration) -> Done<u64> {
    let store = Store::with_limits(t.shared_backend(), Limits::default());
    let worker = Worker::builder(&store).handle("work", async |_: Attempt| {}).schedules().max_time(time);
    Ok(worker.build()?.run().await.succeeded)
}

/// Runs a real worker until nothing is due.
async fn work(t: &Bench) -> Done<u64> {
    async fn handle(_: Attempt) {
        leasehold_core::fail_point!("handler::acted");
    }
    let store = Store::with_limits(t.shared_backend(), Limits::default());
    let worker = Worker::builder(&store).handle("work", handle).until_idle().build()?;
    let summary = worker.run().await;
    Ok(summary.succeeded)
}
