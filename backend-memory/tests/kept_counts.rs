//! The counts and indexes that this store keeps agree with a recount, whatever is done in whatever order, and
//! also when a clock goes backwards, which turns queued jobs into scheduled ones again.

#![allow(clippy::unwrap_used, reason = "in a test, helpers too may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, Backend, Claim, Counts, Enqueue, Expired, Filter, List, Order, Prune, Recover, Renew,
    Renewal, Select, Settle, Settlement, Verdict,
};
use leasehold_core::{
    Clock, Deadline, Due, Keep, LimitKey, ManualClock, NewJob, QueueName, Reason, State, Tag, UniqueKey,
    UniqueScope, WorkerId,
};
use leasehold_memory::Memory;

const QUEUES: [&str; 3] = ["a", "b", "c"];

/// A die with a fixed seed, so that a failure can be looked at again.
struct Die(fastrand::Rng);

impl Die {
    fn below(&mut self, n: u64) -> u64 {
        self.0.u64(..n)
    }

    fn queue(&mut self) -> QueueName {
        QueueName::new(QUEUES[self.0.usize(..QUEUES.len())]).unwrap()
    }

    fn due(&mut self) -> Due {
        match self.below(3) {
            0 => Due::Now,
            1 => Due::In(Duration::from_secs(self.below(100))),
            _ => Due::At(ManualClock::default().now().plus(Duration::from_secs(self.below(200)))),
        }
    }

    fn job(&mut self) -> NewJob {
        let mut job = NewJob::dynamic(if self.below(2) == 0 { "x" } else { "y" }, &()).unwrap();
        job.queue = self.queue();
        job.due = self.due();
        job.options.priority = self.below(3) as i16;
        job.options.max_attempts = 1 + self.below(3) as u32;
        if self.below(4) == 0 {
            job = job
                .limit(LimitKey::new(format!("limit {}", self.below(2))).unwrap(), 1 + self.below(2) as u32);
        }
        if self.below(4) == 0 {
            job = job.tag(Tag::new("tag").unwrap());
        }
        if self.below(4) == 0 {
            let key = UniqueKey::new(format!("key {}", self.below(5))).unwrap();
            let for_a_while = UniqueScope::For(Duration::from_secs(20));
            let scopes = [UniqueScope::UntilClaimed, UniqueScope::UntilFinished, for_a_while];
            job = job.unique(key, scopes[self.0.usize(..3)]);
        }
        job.keep(if self.below(2) == 0 { Keep::Forever } else { Keep::For(Duration::from_secs(30)) })
    }

    fn verdict(&mut self) -> Verdict {
        let delay = Duration::from_secs(self.below(3) * 10);
        match self.below(5) {
            0 => Verdict::Succeed { result: None },
            1 => Verdict::Fail { reason: Reason::Error },
            2 => Verdict::Cancel { reason: Reason::Aborted },
            3 => Verdict::Retry { reason: Reason::Error, delay, queue: None },
            _ => Verdict::Release { reason: Reason::Released, delay },
        }
    }

    fn action(&mut self) -> Action {
        match self.below(6) {
            0 => Action::Cancel,
            1 => Action::Requeue { due: self.due() },
            2 => Action::Delete,
            3 => Action::Move { queue: self.queue() },
            4 => Action::Reprioritise { priority: self.below(3) as i16 },
            _ => Action::Postpone { due: self.due() },
        }
    }
}

/// Counts jobs by queue and state from a list of all.
async fn recount(store: &Memory) -> BTreeMap<QueueName, BTreeMap<State, u64>> {
    let mut counts: BTreeMap<QueueName, BTreeMap<State, u64>> = BTreeMap::new();
    let mut after = None;
    loop {
        let list = List { filter: Filter::default(), order: Order::OldestFirst, after, limit: 100 };
        let page = store.list(Deadline::default(), list).await.unwrap();
        for job in page.jobs {
            *counts.entry(job.queue).or_default().entry(job.state).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            return counts;
        }
    }
}

async fn check(store: &Memory, step: usize) {
    let recounted = recount(store).await;
    for kept in store.counts(Deadline::default(), Counts::default()).await.unwrap() {
        let counted = recounted.get(&kept.queue).cloned().unwrap_or_default();
        assert_eq!(kept.states, counted, "step {step}, queue {}", kept.queue);
        assert_eq!(kept.enqueued, kept.total() + kept.deleted, "step {step}, queue {}", kept.queue);
    }
}

#[tokio::test]
async fn kept_counts_are_those_of_a_recount() {
    let clock = ManualClock::default();
    let store = Memory::on_clock(clock.clone());
    let mut die = Die(fastrand::Rng::with_seed(7));
    let mut held = Vec::new();
    let mut known = Vec::new();
    let on_time = Deadline::default;
    for step in 0..6_000 {
        match die.below(10) {
            0 | 1 => {
                let jobs: Vec<NewJob> = (0..die.below(6)).map(|_| die.job()).collect();
                known.extend(jobs.iter().map(|job| job.id));
                store.enqueue(on_time(), Enqueue { jobs }).await.unwrap();
            }
            2 | 3 => {
                let queues = [die.queue(), die.queue()];
                let limit = die.0.usize(..5);
                let claim = Claim::new(WorkerId::generate(), queues, limit, Duration::from_secs(10));
                let claimed = store.claim(on_time(), claim.clone()).await.unwrap();
                let again = store.claim(on_time(), claim).await.unwrap();
                assert!(claimed.jobs.is_empty() || again.jobs == claimed.jobs);
                held.extend(
                    claimed.jobs.iter().chain(&again.jobs).map(|leased| (leased.job.id, leased.token)),
                );
            }
            4 if !held.is_empty() => {
                let (job, token) = held.swap_remove(die.0.usize(..held.len()));
                let settlement = Settlement { job, token, verdict: die.verdict(), failure: None };
                store.settle(on_time(), Settle { settlements: vec![settlement] }).await.unwrap();
            }
            5 if !held.is_empty() => {
                let (job, token) = held[die.0.usize(..held.len())];
                let renewal =
                    Renewal { job, token, lease: Duration::from_secs(die.below(40)), progress: None };
                store.renew(on_time(), Renew { renewals: vec![renewal] }).await.unwrap();
            }
            6 => {
                let expired = store.expired(on_time(), Expired { limit: 3 }).await.unwrap();
                let settlement = |lease: leasehold_core::backend::ExpiredLease| {
                    let verdict =
                        Verdict::Retry { reason: Reason::LeaseExpired, delay: Duration::ZERO, queue: None };
                    Settlement { job: lease.job, token: lease.token, verdict, failure: None }
                };
                let settlements = expired.into_iter().map(settlement).collect();
                store.recover(on_time(), Recover { settlements }).await.unwrap();
            }
            7 if !known.is_empty() => {
                let select = Select::Ids(vec![known[die.0.usize(..known.len())]]);
                let amend = Amend { select, action: die.action(), preview: die.below(5) == 0 };
                store.amend(on_time(), amend).await.unwrap();
            }
            8 => {
                let prune = Prune { limit: 2, workers_after: Duration::MAX };
                store.prune(on_time(), prune).await.unwrap();
            }
            _ if die.below(8) == 0 => clock.set(clock.now().minus(Duration::from_secs(die.below(60)))),
            _ => clock.advance(Duration::from_secs(die.below(8))),
        }
        if step % 20 == 0 {
            check(&store, step).await;
        }
    }
    check(&store, usize::MAX).await;
    let total: u64 = recount(&store).await.values().flat_map(BTreeMap::values).sum();
    assert!(total > 300 && held.len() > 100, "too little happened: {total} jobs, {} leases", held.len());
}
