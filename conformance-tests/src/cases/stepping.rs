//! C8 where the store's clock jumps: a step moves when things happen, and breaks no fence and no order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::backend::{Answer, Renewed};
use leasehold_core::{JobId, LeaseToken, LeasedJob};

use crate::bench::{
    Bench, LEASE, LOST_ATTEMPT, RETRY, SUCCEED, job, jobs, lines, millis, retry_in, secs, token_of,
};
use crate::breach::{Done, Kept, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// A step past the end of a lease takes the job from its holder only when somebody recovers it.
    [C8, C2] keeps_a_holder_over_a_step_forward;
    /// What was recovered because of a step stays lost to its former holder when the clock is set right again.
    [C8, C2] keeps_the_fence_when_the_clock_is_set_right_again;
    /// A step back gives nobody a job that is held, and its holder goes on in every way.
    [C8, C1] gives_no_held_job_out_after_a_step_back;
    /// A lease that a step back has made longer runs out all the same, later by no more than the step.
    [C8, C3] recovers_a_lease_after_a_step_back;
    /// A renewal after a step back takes nothing from a lease that was given by the clock before.
    [C8, C2] shortens_no_lease_after_a_step_back;
    /// Jobs taken in before and after steps are given in the order of their due times, and each once.
    [C8, C6] keeps_its_order_over_steps;
    /// A job that waits is given before its time by no more than the step.
    [C8] gives_no_job_early_by_more_than_the_step;
    /// Nor is a retry; and one whose time a step back has moved away is given when that time comes again.
    [C8, S3] gives_no_retry_early_by_more_than_the_step;
    /// Workers claim, renew, settle, forget and recover while the clock steps to and fro: no attempt is given
    /// twice, no job ends twice, and nobody writes under a lease that was recovered.
    [C8, C1, C2, C4, S1] gives_nothing_twice_while_its_clock_steps;
}

/// Longer than the leases of the cases.
const STEP: Duration = secs(90);

fn step_forward(t: &Bench) {
    t.advance(STEP);
}

fn step_back(t: &Bench) {
    t.clock().set(t.hour().minus(STEP));
}

async fn keeps_a_holder_over_a_step_forward(t: Bench) -> Kept {
    let lease = t.hold().await?;
    step_forward(&t);
    must_eq!(t.another().await?.claim(1).await?.len(), 0, "jobs given beside the one that is held");
    must_eq!(t.log(&lease, 0, lines(["on"])).await?, Answer::Applied);
    let until = t.hour().plus(LEASE);
    must_eq!(t.renew(&lease, LEASE).await?, Renewed::Held { until, cancel_requested: false });
    must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, Answer::Lost);
    t.finish(&lease, SUCCEED).await?;
    Ok(())
}

async fn keeps_the_fence_when_the_clock_is_set_right_again(t: Bench) -> Kept {
    let lease = t.hold().await?;
    step_forward(&t);
    must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, Answer::Applied);
    let next = t.another().await?.take().await?;
    step_back(&t);
    let before = t.find(next.job.id).await?;
    must_eq!(t.renew(&lease, LEASE * 5).await?, Renewed::Lost);
    must_eq!(t.log(&lease, 0, lines(["late"])).await?, Answer::Lost);
    must_eq!(t.settle(&lease, SUCCEED).await?, Answer::Lost);
    must_eq!(t.find(next.job.id).await?, before);
    must_eq!(next.job.attempt, 2);
    t.finish(&next, SUCCEED).await?;
    Ok(())
}

async fn gives_no_held_job_out_after_a_step_back(t: Bench) -> Kept {
    t.add_all(jobs(4)).await?;
    let leases = t.claim(4).await?;
    step_back(&t);
    let other = t.another().await?;
    must_eq!(other.claim(9).await?.len(), 0);
    must_eq!(other.expired(9).await?, []);
    must_eq!(other.recover(token_of(&leases[0]), LOST_ATTEMPT).await?, Answer::Lost);
    must_be!(t.renew(&leases[0], LEASE).await?, Renewed::Held { .. });
    must_eq!(t.log(&leases[1], 0, lines(["on"])).await?, Answer::Applied);
    t.finish(&leases[2], RETRY).await?;
    for lease in [&leases[0], &leases[1], &leases[3]] {
        t.finish(lease, SUCCEED).await?;
    }
    // It was due when it was retried, by the clock that stands now.
    must_eq!(t.take().await?.job.attempt, 2);
    Ok(())
}

async fn recovers_a_lease_after_a_step_back(t: Bench) -> Kept {
    let lease = t.hold().await?;
    step_back(&t);
    t.advance(STEP + LEASE);
    must_eq!(t.expired(9).await?, [], "leases that ran out at their very end");
    t.advance(millis(1));
    must_eq!(t.expired(9).await?.len(), 1);
    must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, Answer::Applied);
    must_eq!(t.take().await?.job.attempt, 2);
    Ok(())
}

async fn shortens_no_lease_after_a_step_back(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let until = t.hour().plus(LEASE);
    step_back(&t);
    must_eq!(t.renew(&lease, LEASE).await?, Renewed::Held { until, cancel_requested: false });
    t.advance(STEP + LEASE);
    must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, Answer::Lost);
    t.finish(&lease, SUCCEED).await?;
    Ok(())
}

async fn keeps_its_order_over_steps(t: Bench) -> Kept {
    let first = t.add_all(jobs(2)).await?;
    step_forward(&t);
    let ahead = t.add_all(jobs(2)).await?;
    let urgent = t.add(job().priority(5)).await?;
    step_back(&t);
    t.advance(secs(1));
    let after = t.add_all(jobs(2)).await?;
    step_forward(&t);
    let given: Vec<JobId> = t.claim_all(2).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [&[urgent][..], &first, &after, &ahead].concat());
    Ok(())
}

async fn gives_no_job_early_by_more_than_the_step(t: Bench) -> Kept {
    let id = t.add(job().delay(secs(200))).await?;
    step_forward(&t);
    must_eq!(t.claim(1).await?.len(), 0);
    t.advance(secs(110) - millis(1));
    must_eq!(t.claim(1).await?.len(), 0, "jobs given earlier than the step explains");
    step_back(&t);
    t.advance(STEP);
    must_eq!(t.claim(1).await?.len(), 0, "jobs given too early after the clock was set right again");
    t.advance(millis(1));
    must_eq!(t.take().await?.job.id, id);
    Ok(())
}

async fn gives_no_retry_early_by_more_than_the_step(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.finish(&lease, retry_in(secs(30))).await?;
    step_back(&t);
    t.advance(secs(119));
    must_eq!(t.claim(1).await?.len(), 0, "retries given before their time");
    t.advance(secs(1));
    let lease = t.take().await?;
    // Due now, and no longer so when the clock steps back.
    t.finish(&lease, RETRY).await?;
    step_back(&t);
    t.advance(STEP);
    must_eq!(t.take().await?.job.attempt, 3);
    Ok(())
}

const WORKERS: usize = 4;
const ROUNDS: usize = 60;

/// What the workers of the race have seen, all together.
#[derive(Default)]
struct Seen {
    attempts: BTreeSet<(JobId, u32)>,
    recovered: BTreeSet<LeaseToken>,
    ended: BTreeMap<JobId, u32>,
    wrong: Vec<String>,
}

/// One worker of the race.
struct Racer {
    t: Bench,
    dice: fastrand::Rng,
    held: Vec<LeasedJob>,
    seen: Arc<Mutex<Seen>>,
}

impl Racer {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn was_recovered(&self, lease: &LeasedJob) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).recovered.contains(&lease.token)
    }

    async fn race(mut self) -> Done {
        for _ in 0..ROUNDS {
            match self.dice.u8(..6) {
                0..=1 => self.claim(2).await?,
                2..=3 => self.write().await?,
                4 => self.recover().await?,
                _ => self.step(),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn step(&mut self) {
        if self.dice.bool() {
            step_forward(&self.t);
        } else {
            step_back(&self.t);
        }
        self.t.advance(secs(5));
    }

    async fn claim(&mut self, limit: usize) -> Done {
        for lease in self.t.claim(limit).await? {
            self.note(|seen| {
                if !seen.attempts.insert((lease.job.id, lease.job.attempt)) {
                    seen.wrong.push(format!("attempt {} of {} twice", lease.job.attempt, lease.job.id));
                }
            });
            self.held.push(lease);
        }
        Ok(())
    }

    async fn write(&mut self) -> Done {
        if self.held.is_empty() {
            return Ok(());
        }
        let lease = self.held.swap_remove(self.dice.usize(..self.held.len()));
        let lost = self.was_recovered(&lease);
        let written = if self.dice.bool() {
            let held = self.t.renew(&lease, LEASE).await? != Renewed::Lost;
            self.held.push(lease.clone());
            held
        } else {
            let applied = self.t.settle(&lease, SUCCEED).await? == Answer::Applied;
            if applied {
                self.note(|seen| *seen.ended.entry(lease.job.id).or_default() += 1);
            }
            applied
        };
        if lost && written {
            self.note(|seen| seen.wrong.push(format!("a write of {} after its recovery", lease.job.id)));
        }
        Ok(())
    }

    async fn recover(&mut self) -> Done {
        for lost in self.t.expired(3).await? {
            if self.t.recover((lost.job, lost.token), LOST_ATTEMPT).await? == Answer::Applied {
                self.note(|seen| {
                    seen.recovered.insert(lost.token);
                });
            }
        }
        Ok(())
    }

    /// Brings every job to its end.
    async fn drain(&mut self) -> Done {
        for _ in 0..100 {
            self.t.advance(STEP);
            self.recover().await?;
            self.claim(100).await?;
            while !self.held.is_empty() {
                self.write().await?;
            }
        }
        Ok(())
    }
}

async fn gives_nothing_twice_while_its_clock_steps(t: Bench) -> Kept {
    let patient = || job().max_attempts(1_000).crash_budget(1_000);
    let added = t.add_all((0..40).map(|_| patient())).await?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let racer = |t: Bench| {
        let (dice, held) = (fastrand::Rng::with_seed(fastrand::u64(..)), Vec::new());
        Racer { t, dice, held, seen: Arc::clone(&seen) }
    };
    // Whatever the dice say of the others, the leases of this one run out.
    racer(t.clone()).claim(2).await?;
    let mut tasks = Vec::new();
    for client in t.several(WORKERS).await? {
        tasks.push(tokio::spawn(racer(client).race()));
    }
    for task in tasks {
        task.await??;
    }
    racer(t.clone()).drain().await?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    must!(seen.wrong.is_empty(), "while the clock stepped: {:?}", seen.wrong);
    must!(!seen.recovered.is_empty(), "no lease that ran out was recovered");
    for id in &added {
        must_eq!(seen.ended.get(id), Some(&1), "ends of job {id}");
    }
    Ok(())
}
