//! What clients do beside their work: they recover, operate, fire ticks, count and are stopped.

use leasehold_core::backend::{
    Action, Answer, CheckIn, Counts, Prune, Registers, Settlement, Space, Verdict, WorkerInfo,
};
use leasehold_core::{Due, ErrorKind, JobId, QueueName, Reason};

use super::client::Client;
use super::{EVERY, plan, queues, recovery, schedule};
use crate::bench::{Bench, in_time, job, secs, settlement, text, worker_name};
use crate::breach::{Done, Trouble};

impl Client {
    /// Reads lost leases, to take them back some time later.
    pub(super) async fn read_lost(&mut self) -> Done {
        let lost = self.call(|t| async move { t.expired(5).await }).await?;
        self.lost.extend(lost.unwrap_or_default());
        Ok(())
    }

    pub(super) async fn recover(&mut self) -> Done {
        for _ in 0..3 {
            let Some(last) = self.lost.len().checked_sub(1) else { return Ok(()) };
            let lease = self.lost.swap_remove(self.dice.usize(..=last));
            self.call(|t| recover(t, recovery(&lease))).await?;
        }
        Ok(())
    }

    pub(super) async fn operate(&mut self) -> Done {
        if self.added.is_empty() || self.dice.u8(..3) == 0 {
            return self.pause().await;
        }
        let any = self.added[self.dice.usize(..self.added.len())];
        let newest = self.added[self.added.len() - 1];
        let due = Due::In(secs(self.dice.u64(..10)));
        let [main, aside] = queues();
        let dice = self.dice.u8(..16);
        // Most others have ended, which leaves nothing to be cancelled.
        let job = if dice < 3 { newest } else { any };
        let action = match dice {
            0..=5 => Action::Cancel,
            6..=8 => Action::Requeue { due },
            9 if self.dice.bool() => Action::Postpone { due },
            9 => Action::Reprioritise { priority: self.dice.i16(-1..=1) },
            10 => Action::Move { queue: if self.dice.bool() { main } else { aside } },
            // What stays parked is unparked when the storm is over.
            13 => Action::Postpone { due: Due::PARKED },
            14 => Action::Unpark { due },
            15 => Action::CancelParked,
            11 => return self.call(prune).await.map(drop),
            _ => Action::Delete,
        };
        self.call(|t| amend(t, job, action.clone())).await?;
        Ok(())
    }

    /// Pauses a queue, or lets it go on.
    async fn pause(&mut self) -> Done {
        let ([_, aside], paused) = (queues(), self.dice.bool());
        self.call(|t| set(t, aside.clone(), paused)).await?;
        Ok(())
    }

    pub(super) async fn tick_or_look(&mut self) -> Done {
        match self.dice.u8(..3) {
            0 => drop(self.call(fire_one).await?),
            1 => drop(self.call(count).await?),
            _ => {
                let some = self.added.len().min(20);
                let jobs: Vec<JobId> = self.added.iter().rev().take(some).copied().collect();
                self.call(|t| look(t, jobs.clone())).await?;
            }
        }
        Ok(())
    }

    /// Gives back whatever it holds, and goes for good.
    pub(super) async fn stop(mut self) -> Done {
        let held = std::mem::take(&mut self.held).into_iter();
        for lease in held.chain(std::mem::take(&mut self.asleep)) {
            let verdict = Verdict::Release { reason: Reason::Released, delay: secs(0) };
            let settlement = settlement(&lease, verdict);
            self.call(|t| settle(t, settlement.clone())).await?;
        }
        self.call(leave).await?;
        Ok(self.journal.stopped(self.t.worker)?)
    }
}

/// Fires the next tick if it is due, and answers whether it was.
pub(super) async fn fire(t: &Bench) -> Done<bool> {
    let request = Registers::due(Space::Schedule, 1);
    let Some(due) = t.backend().registers(in_time(0), request).await?.registers.pop() else {
        return Ok(false);
    };
    let Some(tick) = due.next else { return Ok(false) };
    t.enqueue([job().id(JobId::of_tick(&schedule(), tick)).run_at(tick)]).await?;
    let next = Some(tick.plus(EVERY)).filter(|next| due.body != text(&next.as_millis().to_string()));
    match plan(t, due.body, next, Some(due.version)).await {
        // Somebody else was faster.
        Err(Trouble::Store(error)) if error.kind() == ErrorKind::Conflict => Ok(true),
        written => written.map(|()| true),
    }
}

async fn fire_one(t: Bench) -> Done<bool> {
    fire(&t).await
}

async fn prune(t: Bench) -> Done {
    let request = Prune { limit: 5, workers_after: secs(3_600) };
    Ok(t.backend().prune(in_time(0), request).await.map(drop)?)
}

async fn set(t: Bench, queue: QueueName, paused: bool) -> Done {
    t.pause(&queue, paused).await
}

async fn count(t: Bench) -> Done {
    t.backend().counts(in_time(0), Counts::default()).await?;
    Ok(())
}

/// Looks at jobs and reads the log of one.
async fn look(t: Bench, jobs: Vec<JobId>) -> Done {
    t.find_all(&jobs).await?;
    match jobs.first() {
        Some(job) => t.said(*job).await.map(drop),
        None => Ok(()),
    }
}

async fn leave(t: Bench) -> Done {
    let info = WorkerInfo::new(worker_name("storm"), "here", 1);
    let request = CheckIn { worker: t.worker, info, lost_after: secs(60), leaving: true };
    t.backend().check_in(in_time(0), request).await?;
    Ok(())
}

async fn recover(t: Bench, recovery: Settlement) -> Done<Vec<Answer>> {
    t.recover_all(vec![recovery]).await
}

async fn amend(t: Bench, job: JobId, action: Action) -> Done {
    t.amend(job, action).await.map(drop)
}

async fn settle(t: Bench, settlement: Settlement) -> Done<Answer> {
    t.settle_this(settlement).await
}
