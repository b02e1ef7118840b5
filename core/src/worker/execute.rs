use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use metrics::{Histogram, counter, histogram};
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
use crate::job::{JobRecord, Reason};
use crate::name::{Kind, QueueName};
use crate::policy::{Decision, HandlerError, JobFailure, Outcome, RetryPolicy, after_attempt};
use crate::telemetry;

/// How long a claimed job may wait for a free slot before it is given back for other workers.
const STALE: Duration = Duration::from_secs(1);

/// How long an attempt's last log lines and progress may take; the job itself is settled all the same (L4).
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Claimed jobs that have not begun, and since when they wait.
#[derive(Default)]
struct Waiting(Mutex<VecDeque<(Instant, Attempt)>>);

impl Waiting {
    fn attempts(&self) -> MutexGuard<'_, VecDeque<(Instant, Attempt)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, claimed: Vec<Attempt>) {
        let now = Instant::now();
        self.attempts().extend(claimed.into_iter().map(|attempt| (now, attempt)));
    }

    fn is_empty(&self) -> bool {
        self.attempts().is_empty()
    }

    /// The one that waits longest.
    fn next(&self) -> Option<Attempt> {
        self.attempts().pop_front().map(|(_, attempt)| attempt)
    }

    /// The one that waits longest, if it has waited for too long.
    fn next_stale(&self) -> Option<Attempt> {
        let now = Instant::now();
        self.attempts().pop_front_if(|(since, _)| *since + STALE <= now).map(|(_, attempt)| attempt)
    }

    /// When one will have waited for too long.
    fn stale_at(&self) -> Option<Instant> {
        self.attempts().front().map(|(since, _)| *since + STALE)
    }
}

/// Runs claimed jobs, `concurrency` at once, until the fetch service has ended and all are done.
pub(super) async fn execute(shared: Arc<Shared>, mut claimed: mpsc::UnboundedReceiver<Vec<Attempt>>) {
    let waiting = Arc::<Waiting>::default();
    let mut slots = JoinSet::new();
    let mut open = true;
    while open || !waiting.is_empty() || !slots.is_empty() {
        if shared.stopping.is_cancelled() {
            while let Some(attempt) = waiting.next() {
                shared.load.waiting.fetch_sub(1, Ordering::AcqRel);
                shared.end(&attempt, Outcome::Interrupted).await;
            }
        }
        while slots.len() < shared.config.concurrency {
            let Some(first) = shared.begin(&waiting) else { break };
            shared.own_log.spawn(&mut slots, slot(shared.clone(), waiting.clone(), first));
            // To the fetch service a slot counts as free only while nothing waits for it.
            shared.tell_room();
        }
        let stale_at = waiting.stale_at();
        tokio::select! {
            Some(ended) = slots.join_next() => panics::pass_on(ended),
            next = claimed.recv(), if open => match next {
                Some(claimed) => waiting.add(claimed),
                None => open = false,
            },
            () = shared.stopping.cancelled(), if stale_at.is_some() => {}
            () = tokio::time::sleep_until(stale_at.unwrap_or_else(Instant::now)), if stale_at.is_some() => {
                while let Some(attempt) = waiting.next_stale() {
                    // First of what was taken: see the fetch service.
                    shared.load.taken.fetch_sub(1, Ordering::AcqRel);
                    shared.load.waiting.fetch_sub(1, Ordering::AcqRel);
                    shared.load.runs_at_least(STALE);
                    shared.end(&attempt, Outcome::Released).await;
                    shared.tell_room();
                }
            }
        }
    }
}

/// Runs one job after another for as long as any wait: short ones cost no task each.
async fn slot(shared: Arc<Shared>, waiting: Arc<Waiting>, first: Attempt) {
    let (mut next, mut times) = (Some(first), Times::default());
    while let Some(attempt) = next {
        run(&shared, attempt, &mut times).await;
        shared.load.running.fetch_sub(1, Ordering::AcqRel);
        next = shared.begin(&waiting);
        shared.tell_room();
        // Jobs that never wait must not hold up what else there is to do.
        tokio::task::coop::consume_budget().await;
    }
}

impl Shared {
    /// Takes the next job to run, unless the worker is to begin no more.
    fn begin(&self, waiting: &Waiting) -> Option<Attempt> {
        let next = if self.stopping.is_cancelled() { None } else { waiting.next() };
        if next.is_some() {
            self.load.running.fetch_add(1, Ordering::AcqRel);
            self.load.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        next
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
        if !entry.has_progress() && !entry.has_lines() {
            return;
        }
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

    /// When failed attempts of a kind are tried again, where the job does not say.
    pub(super) fn policy(&self, kind: &Kind) -> &RetryPolicy {
        let options = self.routes.of(kind).map(|(_, options)| options);
        options.and_then(|options| options.retry.as_ref()).unwrap_or(&self.config.retry)
    }

    /// Decides what becomes of the job, and hands it to the settle service.
    async fn end(&self, attempt: &Attempt, outcome: Outcome) {
        let (job, entry) = (attempt.job(), attempt.entry());
        if entry.cause() == Some(Cause::LeaseLost) {
            self.held.remove([entry]);
            return;
        }
        let Decision { verdict, failure } =
            after_attempt(outcome, job, self.policy(&job.kind), fastrand::f64());
        entry.settle();
        let settlement = Settlement { job: entry.job, token: entry.token, verdict, failure };
        // The settle service outlives this one.
        let _ = self.settle.send((settlement, entry.clone())).await;
    }
}

/// The metric of a slot's latest job, which is that of most that come next.
#[derive(Default)]
struct Times(Option<(QueueName, Kind, Histogram)>);

impl Times {
    fn of(&mut self, job: &JobRecord) -> &Histogram {
        let latest = self.0.take().filter(|(queue, kind, _)| *queue == job.queue && *kind == job.kind);
        let metric = || histogram!("leasehold_job_seconds", &labels(job));
        let (_, _, times) =
            self.0.insert(latest.unwrap_or_else(|| (job.queue.clone(), job.kind.clone(), metric())));
        times
    }
}

fn labels(job: &JobRecord) -> [(&'static str, String); 2] {
    [("queue", job.queue.to_string()), ("kind", job.kind.to_string())]
}

/// Runs one attempt to its end.
async fn run(shared: &Shared, attempt: Attempt, times: &mut Times) {
    let (job, entry) = (attempt.job(), attempt.entry());
    let span = tracing::info_span!(
        "leasehold.job", id = %job.id, kind = %job.kind, queue = %job.queue, attempt = job.attempt, otel.kind = "consumer",
    );
    telemetry::receive(&span, &job.options.headers);
    let begun = Instant::now();
    // Around everything of the handler's: a panic may also come from a layer, or when it is dropped.
    let outcome = AssertUnwindSafe(shared.attempt(&attempt)).catch_unwind();
    let outcome = match panics::noted(outcome.instrument(span)).await {
        (Ok(outcome), _) => outcome,
        (Err(payload), place) => Outcome::Failure(panics::failure(payload, place)),
    };
    if let Outcome::Failure(failure) = &outcome {
        shared.failed(job, failure);
    }
    let took = begun.elapsed();
    shared.load.ran(took);
    times.of(job).record(took);
    if entry.cause() == Some(Cause::LeaseLost) {
        counter!("leasehold_leases_lost_total", &labels(job)).increment(1);
        shared.stats.lost.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(job = %job.id, "the lease was lost; what the handler did is not recorded");
    } else {
        shared.last_words(entry).await;
    }
    shared.end(&attempt, outcome).await;
}

impl Shared {
    /// Runs the handler under its time-out, and ends it when it is told to end.
    async fn attempt(&self, attempt: &Attempt) -> Outcome {
        let (job, entry) = (attempt.job(), attempt.entry());
        let Some((route, options)) = self.routes.of(&job.kind) else {
            let failure = JobFailure::error("unknown_kind", format!("no handler for {}", job.kind));
            return Outcome::Failure(JobFailure { reason: Reason::UnknownKind, ..failure });
        };
        // A claim may have taken longer than the lease that it got.
        entry.fence();
        if let Some(cause) = entry.cause() {
            return ended_by(cause, Duration::ZERO);
        }
        let timeout = job.options.timeout.or(options.timeout).unwrap_or(self.config.timeout);
        let grace = options.grace;
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
        entry.cancelled().await;
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
            () = entry.lost() => {}
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
