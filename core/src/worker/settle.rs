use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::held::{Entry, fewer};
use super::panics;
use super::shared::Shared;
use crate::backend::{Answer, Settle, Settlement, Verdict};
use crate::error::{Error, ErrorKind};
use crate::policy::{Backoff, Decision, after_refusal};

/// How many settlements go to the store in one call.
const BATCH: usize = 1_000;
/// How many may wait for it before handlers wait too.
pub(super) const WAITING: usize = 4 * BATCH;

/// How long a batch waits for the one before it, so that batches are large; one that hangs holds up no other.
const IN_TURN: Duration = Duration::from_secs(1);

/// Records how attempts ended, in batches, until nobody can hand in another.
pub(super) async fn settle(shared: Arc<Shared>, mut ended: mpsc::Receiver<(Settlement, Arc<Entry>)>) {
    let most = BATCH.min(shared.store.limits().batch);
    let (mut batch, mut hanging) = (Vec::with_capacity(most), Vec::new());
    while ended.recv_many(&mut batch, most).await > 0 {
        crate::fail_point!("settle::before_send");
        let (shared, batch) = (shared.clone(), std::mem::take(&mut batch));
        let call = async move { shared.settle_all(batch).await };
        let mut call = AbortOnDropHandle::new(tokio::spawn(call));
        match timeout(IN_TURN, &mut call).await {
            Ok(ended) => panics::pass_on(ended),
            Err(_) => hanging.push(call),
        }
        for over in hanging.extract_if(.., |call| call.is_finished()) {
            panics::pass_on(over.await);
        }
    }
}

impl Shared {
    /// Settles the batch, however often the store must be asked: it takes a settlement for as long as nobody
    /// has taken the job back (clause C2).
    async fn settle_all(&self, mut batch: Vec<(Settlement, Arc<Entry>)>) {
        let (first, cap) = (Duration::from_millis(50), Duration::from_secs(2));
        let backoff = Backoff::Exponential { first, factor: 2.0, cap, jitter: 0.5 };
        for tries in 1.. {
            let settlements = batch.iter().map(|(settlement, _)| settlement.clone()).collect();
            let error = match self.store.backend().settle(self.store.deadline(), Settle { settlements }).await
            {
                Ok(answers) => {
                    let mut outcomes = BTreeMap::new();
                    for ((settlement, entry), answer) in batch.iter().zip(answers) {
                        *outcomes.entry(self.ended(settlement, entry, answer)).or_default() += 1;
                    }
                    for (outcome, jobs) in outcomes {
                        counter!("leasehold_jobs_total", "outcome" => outcome).increment(jobs);
                    }
                    self.held.remove(batch.iter().map(|(_, entry)| entry));
                    return;
                }
                Err(error) => error,
            };
            if error.is_refusal() && batch.len() > 1 {
                // One bad item must not take the others with it.
                for item in batch {
                    Box::pin(self.settle_all(vec![item])).await;
                }
                return;
            }
            if error.kind() == ErrorKind::Unknown && batch.len() > 1 {
                // Nor must one at which the call hangs.
                let few = fewer(batch.len());
                let mut parts = Vec::new();
                while !batch.is_empty() {
                    let part = batch.split_off(batch.len().saturating_sub(few));
                    parts.push(self.settle_all(part));
                }
                Box::pin(join_all(parts)).await;
                return;
            }
            if error.is_refusal() && batch.iter_mut().any(|(settlement, _)| fail_instead(settlement, &error))
            {
                continue;
            }
            batch.retain(|(_, entry)| !self.is_over(entry, &error));
            if batch.is_empty() {
                return;
            }
            tracing::warn!(%error, jobs = batch.len(), "ended jobs could not be settled; trying again");
            tokio::time::sleep(backoff.delay(tries, fastrand::f64())).await;
        }
    }

    /// Whether to stop trying: waiting does not mend it, and the lease is over or the settlement itself is
    /// refused. The job is then taken back when its lease runs out.
    fn is_over(&self, entry: &Arc<Entry>, error: &Error) -> bool {
        let over = error.is_refusal() || (!error.is_transient() && entry.fence_at() <= Instant::now());
        if over {
            tracing::error!(job = %entry.job, %error, "an ended job could not be settled; its lease will run out");
            self.stats.lost.fetch_add(1, Ordering::Relaxed);
            self.held.remove([entry]);
        }
        over
    }

    /// Counts an attempt that has ended, and answers how.
    fn ended(&self, settlement: &Settlement, entry: &Entry, answer: Answer) -> &'static str {
        let add = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        match (answer, &settlement.verdict) {
            (Answer::Lost, _) => add(&self.stats.lost),
            (_, Verdict::Succeed { .. }) => add(&self.stats.succeeded),
            (_, Verdict::Fail { .. }) => add(&self.stats.failed),
            (_, Verdict::Cancel { .. }) => add(&self.stats.cancelled),
            (_, Verdict::Retry { .. }) => add(&self.stats.retried),
            (_, Verdict::Release { .. }) => add(&self.stats.released),
        }
        if answer == Answer::Lost {
            tracing::warn!(job = %entry.job, "the lease was lost before the job's end was recorded");
            return "lost";
        }
        self.hear_of(entry, &settlement.verdict);
        settlement.verdict.name()
    }
}

/// Has the job fail instead. Answers whether it was not to fail anyway.
fn fail_instead(settlement: &mut Settlement, error: &Error) -> bool {
    if let Verdict::Fail { .. } = settlement.verdict {
        return false;
    }
    let Decision { verdict, failure } = after_refusal(error);
    (settlement.verdict, settlement.failure) = (verdict, failure);
    true
}
