use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use metrics::{counter, histogram};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::Instrument;

use super::attempt::Attempt;
use super::held::{Cause, Entry};
use super::panics;
use super::run::EndedBy;
use super::shared::Shared;
use crate::backend::Settlement;
use crate::job::{JobRecord, LeasedJob, Reason};
use crate::policy::{Decision, HandlerError, JobFailure, Outcome, after_attempt};

/// How long a claimed job may wait for a free slot before it is given back for other workers.
const STALE: Duration = Duration::from_secs(1);

/// How long an attempt's last log lines and progress may take; the job itself is settled all the same (L4).
const LAST_WORDS: Duration = Duration::from_secs(1);

type Ready = (LeasedJob, Arc<Entry>);

/// Runs claimed jobs, `concurrency` at once, until the fetch service has ended and all are done.
pub(super) async fn execute(shared: Arc<Shared>, mut ready: mpsc::UnboundedReceiver<Ready>) {
    let mut waiting: VecDeque<(Instant, Ready)> = VecDeque::new();
    let mut running = JoinSet::new();
    let mut open = true;
    while open || !waiting.is_empty() || !running.is_empty() {
        if shared.stopping.is_cancelled() {
            for (_, (leased, entry)) in waiting.drain(..) {
                shared.load.waiting.fetch_sub(1, Ordering::AcqRel);
                shared.end(&leased.job, entry, Outcome::Interrupted).await;
            }
        }
        while running.len() < shared.config.concurrency {
            let Some((_, (leased, entry))) = waiting.pop_front() else { break };
            shared.load.running.fetch_add(1, Ordering::AcqRel);
            shared.load.waiting.fetch_sub(1, Ordering::AcqRel);
            shared.own_log.spawn(&mut running, run(shared.clone(), leased, entry));
            // To the fetch service a slot counts as free only while nothing waits for it.
            shared.tell_room();
        }
        let stale_at = waiting.front().map(|(since, _)| *since + STALE);
        tokio::select! {
            Some(ended) = running.join_next() => {
                panics::pass_on(ended);
                shared.made_room();
            }
            next = ready.recv(), if open => match next {
                Some(ready) => waiting.push_back((Instant::now(), ready)),
                None => open = false,
            },
            () = shared.stopping.cancelled(), if !waiting.is_empty() => {}
            () = tokio::time::sleep_until(stale_at.unwrap_or_else(Instant::now)), if stale_at.is_some() => {
                if let Some((_, (leased, entry))) = waiting.pop_front() {
                    shared.load.waiting.fetch_sub(1, Ordering::AcqRel);
                    shared.load.taken.fetch_sub(1, Ordering::AcqRel);
                    shared.load.runs_at_least(STALE);
                    shared.end(&leased.job, entry, Outcome::Released).await;
                    shared.tell_room();
                }
            }
        }
    }
}

impl Shared {
    fn made_room(&self) {
        self.load.running.fetch_sub(1, Ordering::AcqRel);
        self.tell_room();
    }

    /// Tells the fetch service that there is room, once a claim is worth it. Nobody but this service makes room.
    fn tell_room(&self) {
        if self.free().is_some() {
            self.load.room.notify_waiters();
        }
    }

    /// Tells of an attempt that failed whoever wants to know. What panics there spoils nothing else.
    pub(super) fn failed(&self, job: &JobRecord, failure: &JobFailure) {
        for told in &self.on_failure {
            if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| told(job, failure))) {
                tracing::error!(job = %job.id, panic = panics::message(&*panic), "who is told of failures panicked");
            }
        }
        if self.config.fail_fast {
            self.end_by(EndedBy::Failure);
        }
    }

    /// Writes what the handler said last: once the attempt is settled the store takes it no more.
    async fn last_words(&self, entry: &Arc<Entry>) {
        let written = async {
            if entry.has_progress() {
                self.renew(vec![entry.clone()]).await;
            }
            self.log.flush(entry).await;
        };
        if tokio::time::timeout(LAST_WORDS, written).await.is_err() {
            tracing::warn!(job = %entry.job, "the job's last log lines or progress could not be written in time");
        }
    }

    /// Decides what becomes of the job, and hands it to the settle service.
    async fn end(&self, job: &JobRecord, entry: Arc<Entry>, outcome: Outcome) {
        if entry.cause() == Some(Cause::LeaseLost) {
            self.held.remove([&entry]);
            return;
        }
        let options = self.routes.of(&job.kind).map(|(_, options)| options);
        let policy = options.and_then(|options| options.retry.as_ref()).unwrap_or(&self.config.retry);
        let Decision { verdict, failure } = after_attempt(outcome, job, policy, fastrand::f64());
        entry.settle();
        let settlement = Settlement { job: entry.job, token: entry.token, verdict, failure };
        // The settle service outlives this one.
        let _ = self.settle.send((settlement, entry)).await;
    }
}

/// Runs one attempt to its end.
async fn run(shared: Arc<Shared>, leased: LeasedJob, entry: Arc<Entry>) {
    let job = leased.job.clone();
    let span = tracing::info_span!("leasehold.job", id = %job.id, kind = %job.kind, queue = %job.queue, attempt = job.attempt);
    let begun = Instant::now();
    // Around everything of the handler's: a panic may also come from a layer, or when it is dropped.
    let attempt = AssertUnwindSafe(shared.attempt(leased, &entry)).catch_unwind();
    let outcome = match panics::noted(attempt.instrument(span)).await {
        (Ok(outcome), _) => outcome,
        (Err(payload), place) => Outcome::Failure(panics::failure(payload, place)),
    };
    if let Outcome::Failure(failure) = &outcome {
        shared.failed(&job, failure);
    }
    shared.load.ran(begun.elapsed());
    let labels = [("queue", job.queue.to_string()), ("kind", job.kind.to_string())];
    histogram!("leasehold_job_seconds", &labels).record(begun.elapsed());
    if entry.cause() == Some(Cause::LeaseLost) {
        counter!("leasehold_leases_lost_total", &labels).increment(1);
        shared.stats.lost.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(job = %job.id, "the lease was lost; what the handler did is not recorded");
    } else {
        shared.last_words(&entry).await;
    }
    shared.end(&job, entry, outcome).await;
}

impl Shared {
    /// Runs the handler under its time-out, and ends it when it is told to end.
    async fn attempt(self: &Arc<Self>, leased: LeasedJob, entry: &Arc<Entry>) -> Outcome {
        let Some((route, options)) = self.routes.of(&leased.job.kind) else {
            let failure = JobFailure::error("unknown_kind", format!("no handler for {}", leased.job.kind));
            return Outcome::Failure(JobFailure { reason: Reason::UnknownKind, ..failure });
        };
        // A claim may have taken longer than the lease that it got.
        entry.fence();
        if let Some(cause) = entry.cause() {
            return ended_by(cause, Duration::ZERO);
        }
        let timeout = leased.job.options.timeout.or(options.timeout).unwrap_or(self.config.timeout);
        let grace = options.grace;
        let attempt = Attempt::new(leased, entry.clone(), self.clone());
        let outcome = tokio::select! {
            biased;
            ended = attempt.scope(route.clone().oneshot(attempt.clone())) => {
                told(entry, ended.unwrap_or_else(HandlerError::into_outcome), timeout)
            }
            () = entry.decided() => Outcome::Released,
            () = out_of_time(entry, timeout, grace) => timed_out(timeout),
            cause = self.cut_off(entry, grace) => ended_by(cause, timeout),
        };
        entry.decision().unwrap_or(outcome)
    }

    /// Waits until the handler is to be dropped: at once when its lease is lost, at the end of the worker's
    /// grace, or a grace period after somebody cancelled the job.
    async fn cut_off(&self, entry: &Entry, grace: Option<Duration>) -> Cause {
        entry.cancelled().cancelled().await;
        let grace = async {
            match entry.cause() {
                Some(Cause::CancelRequested) => {
                    tokio::time::sleep(grace.unwrap_or(self.config.cancel_grace)).await;
                }
                Some(Cause::Stopping | Cause::TimedOut) => std::future::pending().await,
                Some(Cause::LeaseLost) | None => {}
            }
        };
        tokio::select! {
            () = grace => {}
            () = entry.lost().cancelled() => {}
            () = self.interrupt.cancelled() => {}
        }
        entry.cause().unwrap_or(Cause::Stopping)
    }
}

/// Waits until the handler has run for as long as it may, and then for as long as it may take to end.
async fn out_of_time(entry: &Entry, timeout: Duration, grace: Option<Duration>) {
    tokio::time::sleep(timeout).await;
    if let Some(grace) = grace {
        entry.cancel(Cause::TimedOut);
        tokio::time::sleep(grace).await;
    }
}

/// How an attempt went whose handler was dropped, or never begun. A lost lease is not settled at all.
fn ended_by(cause: Cause, timeout: Duration) -> Outcome {
    match cause {
        Cause::CancelRequested => Outcome::Cancelled,
        Cause::TimedOut => timed_out(timeout),
        Cause::Stopping | Cause::LeaseLost => Outcome::Interrupted,
    }
}

fn timed_out(timeout: Duration) -> Outcome {
    Outcome::Failure(JobFailure {
        reason: Reason::Timeout,
        ..JobFailure::error("timeout", format!("ran longer than its time-out of {timeout:?}"))
    })
}

/// What a handler's return means if it had been told to end: an error may then be the way it ended itself.
fn told(entry: &Entry, outcome: Outcome, timeout: Duration) -> Outcome {
    let given_up = matches!(outcome, Outcome::Failure(_) | Outcome::Released | Outcome::Interrupted);
    match entry.cause() {
        Some(Cause::TimedOut) => timed_out(timeout),
        Some(Cause::CancelRequested) if given_up => Outcome::Cancelled,
        Some(Cause::Stopping) if matches!(outcome, Outcome::Failure(_)) => Outcome::Interrupted,
        _ => outcome,
    }
}
