//! Clients that keep a store busy while it is broken, and repeat what they do not know until they know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use leasehold_conformance::history::{Journal, MemorySink, Recorder, Rules, Tally, check};
use leasehold_core::backend::{
    AppendLogs, Claim, Counts, Enqueue, Expired, Level, LogAppend, NewLine, Recover, Renew, Renewal,
    Settlement, Verdict,
};
use leasehold_core::policy::{Backoff, RetryPolicy, after_expiry};
use leasehold_core::{Backend, LeasedJob, NewJob, QueueName, Reason, State, WorkerId};
use leasehold_mongo::{Config, Mongo};
use tokio::time::{sleep, timeout};

use crate::bench::{LEASE, PATIENCE, again, job, set_up, settling, soon};

const CLIENTS: usize = 6;
/// How many jobs are taken in by one call.
const BATCH: usize = 5;

/// A run under load.
pub(crate) struct Load {
    sink: MemorySink,
    left: AtomicUsize,
    settled: AtomicUsize,
    pub(crate) journal: Journal,
}

impl Load {
    /// Lets clients work through so many jobs on a store while `trouble` happens to its servers, until every job
    /// has ended; then judges the history, in which at least `unknown` calls must have had no answer.
    pub(crate) async fn run(
        config: Config,
        jobs: usize,
        unknown: usize,
        trouble: impl AsyncFnOnce(&Load),
    ) -> Tally {
        let sink = MemorySink::default();
        let journal = Journal::new("trouble", Arc::new(sink.clone()));
        let load = Load { sink, left: AtomicUsize::new(jobs), settled: AtomicUsize::new(0), journal };
        let store = set_up(config.clone()).await;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let store = Mongo::with(config.clone()).await.expect("a store");
            let sink = Arc::new(load.sink.clone());
            let recorder = Recorder::wrap(Arc::new(store), &format!("w{number}#1"), sink);
            clients.push(load.work(recorder));
        }
        let all = Box::pin(async { tokio::join!(trouble(&load), join_all(clients)) });
        timeout(PATIENCE * 2, all).await.expect("all jobs end in time");
        again(async || load.journal.last_look(&store).await).await;
        let verdict = check(&load.sink.events(), &Rules::drained(jobs).unknown(unknown));
        assert!(verdict.is_valid(), "{verdict}");
        assert_eq!(verdict.tally.jobs, jobs);
        verdict.tally
    }

    /// Waits until so many more jobs were settled.
    pub(crate) async fn settled(&self, more: usize) {
        let wanted = self.settled.load(Ordering::SeqCst) + more;
        crate::bench::until("the load goes on", async || self.settled.load(Ordering::SeqCst) >= wanted).await;
    }

    async fn work(&self, store: Recorder) {
        loop {
            if self.take_batch() {
                let jobs: Vec<NewJob> = (0..BATCH).map(some_job).collect();
                again(async || store.enqueue(soon(), Enqueue { jobs: jobs.clone() }).await).await;
            }
            let claim = Claim::new(WorkerId::generate(), [QueueName::default()], BATCH, LEASE);
            let leases = again(async || store.claim(soon(), claim.clone()).await).await.jobs;
            if !leases.is_empty() {
                self.handle(&store, leases).await;
                continue;
            }
            if self.left.load(Ordering::SeqCst) == 0 && all_ended(&store).await {
                return;
            }
            recover(&store).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn take_batch(&self) -> bool {
        let less = |left: usize| left.checked_sub(BATCH);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    async fn handle(&self, store: &Recorder, leases: Vec<LeasedJob>) {
        let written = "the history is written";
        for lease in &leases {
            store.journal().start(lease.job.id, lease.token).expect(written);
        }
        let renewal = |lease: &LeasedJob| Renewal {
            job: lease.job.id,
            token: lease.token,
            lease: LEASE,
            progress: None,
        };
        let renewals: Vec<_> = leases.iter().map(renewal).collect();
        again(async || store.renew(soon(), Renew { renewals: renewals.clone() }).await).await;
        let line = NewLine { level: Level::Info, message: "at work".into() };
        let append =
            LogAppend { job: leases[0].job.id, token: leases[0].token, position: 0, lines: vec![line] };
        again(async || store.append_logs(soon(), AppendLogs { appends: vec![append.clone()] }).await).await;
        for lease in &leases {
            store.journal().effect(lease.job.id, lease.token).expect(written);
            store.journal().end(lease.job.id, lease.token).expect(written);
        }
        let (retried, done): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| retries(&lease.job.id));
        for (leases, verdict) in [
            (done, Verdict::Succeed { result: None }),
            (retried, Verdict::Retry { reason: Reason::Error, delay: Duration::ZERO, queue: None }),
        ] {
            let settle = settling(&leases, &verdict);
            again(async || store.settle(soon(), settle.clone()).await).await;
            self.settled.fetch_add(leases.len(), Ordering::SeqCst);
        }
    }
}

/// One job in five shares a limit key with the others of its kind, so that transactions are under way too.
fn some_job(n: usize) -> NewJob {
    let job = job().max_attempts(3);
    if n == 0 { job.limit("narrow".parse().expect("a key"), 3) } else { job }
}

/// One job in four is tried again until no attempt is left.
fn retries(job: &leasehold_core::JobId) -> bool {
    job.as_uuid().as_bytes()[15].is_multiple_of(4)
}

async fn all_ended(store: &Recorder) -> bool {
    let counts = again(async || store.counts(soon(), Counts::default()).await).await;
    let alive = State::ALL.into_iter().filter(|state| !state.is_terminal());
    alive.map(|state| counts.iter().map(|queue| queue.of(state)).sum::<u64>()).sum::<u64>() == 0
}

/// Takes back what a claim was given of which nobody heard in time.
async fn recover(store: &Recorder) {
    let lost = again(async || store.expired(soon(), Expired { limit: 100 }).await).await;
    let policy = RetryPolicy::new(Backoff::Fixed { delay: Duration::ZERO });
    let settlement = |lost| {
        let decision = after_expiry(lost, &policy, 0.0);
        Settlement { job: lost.job, token: lost.token, verdict: decision.verdict, failure: decision.failure }
    };
    let settlements: Vec<_> = lost.iter().map(settlement).collect();
    if !settlements.is_empty() {
        again(async || store.recover(soon(), Recover { settlements: settlements.clone() }).await).await;
    }
}
