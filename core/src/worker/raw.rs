//! Payloads of raw queues: those that a bundle carries, and those that come back by themselves.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::ServiceExt;

use super::attempt::Attempt;
use super::handler::Handler;
use super::options::RawOptions;
use super::panics;
use crate::backend::{EnqueueAnswer, Verdict};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::job::{Bundle, Due, JobRecord, LeasedJob, NewJob, OnConflict, PUSHED_BACK, Progress, Reason};
use crate::limits;
use crate::name::Kind;
use crate::policy::{Decision, HandlerError, JobFailure, Outcome, after_attempt};

/// The header that tells why a payload became a job of its own.
const FIRST_FAILURE: &str = "leasehold.first_failure";
/// How much of that it tells.
const FAILURE_BYTES: usize = 1_024;
/// How often it is told which payloads are done, and jobs are made of those that failed.
const REPORT: Duration = Duration::from_millis(50);
/// How many jobs are made at once, at most.
const APART: usize = 100;
/// How far payloads may be done beyond the first that is not.
const WINDOW: u32 = 512;

/// Runs the payloads of a bundle by the worker's handler for `kind`.
#[derive(Clone)]
pub(super) struct Bundled {
    pub(super) kind: Kind,
    pub(super) options: RawOptions,
}

impl Handler<Bundled> for Bundled {
    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let this = self.clone();
        async move {
            let bundle = match Bundle::read(&attempt.job().payload) {
                Ok(bundle) => bundle,
                Err(error) => {
                    let failure = JobFailure::error("bad_payload", error.message()).permanent();
                    return Outcome::Failure(JobFailure { reason: Reason::BadPayload, ..failure });
                }
            };
            let done = attempt.cursor::<Done>().ok().flatten().unwrap_or_default();
            let course =
                Course { attempt, bundle, kind: this.kind, options: this.options, done, apart: Vec::new() };
            course.run().await.unwrap_or_else(|error| Outcome::Failure(error_of(&error)))
        }
        .boxed()
    }
}

fn error_of(error: &Error) -> JobFailure {
    JobFailure::error("raw", error.to_string())
}

/// Which payloads are done, as the cursor tells it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Done {
    /// All before this one.
    until: u32,
    /// And these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    beyond: BTreeSet<u32>,
    /// The one that was begun last, where that is told before each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u32>,
}

impl Done {
    fn has(&self, index: u32) -> bool {
        index < self.until || self.beyond.contains(&index)
    }

    fn add(&mut self, index: u32) {
        self.beyond.insert(index);
        while self.beyond.remove(&self.until) {
            self.until += 1;
        }
    }

    fn count(&self) -> u64 {
        u64::from(self.until) + self.beyond.len() as u64
    }
}

/// One attempt of a bundle.
struct Course {
    attempt: Attempt,
    bundle: Bundle,
    kind: Kind,
    options: RawOptions,
    done: Done,
    /// Payloads that are to become jobs of their own. They are not done before they have.
    apart: Vec<(u32, NewJob)>,
}

impl Course {
    /// Once a worker has died over this bundle, each payload is told before it begins: the one at which another
    /// worker dies becomes a job of its own, with a crash budget of its own, and costs the others nothing.
    async fn run(mut self) -> Result<Outcome> {
        let careful = self.attempt.job().crashes > 0;
        let most = if careful { 1 } else { self.options.concurrency };
        if let Some(at) = self.done.at.take().filter(|at| careful && !self.done.has(*at)) {
            let failure = JobFailure::error("crash", "a worker died while it ran in a bundle");
            self.set_apart(at, Duration::ZERO, Some(&failure));
            self.write_apart().await?;
        }
        let (mut next, mut reported) = (0, Instant::now());
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < most
                && !self.attempt.is_cancelled()
                && let Some(index) = self.next(&mut next)
            {
                if careful {
                    self.done.at = Some(index);
                    self.attempt.save_cursor(&self.done).await?;
                }
                let part = self.part(index);
                running.push(one(self.attempt.clone(), part).map(move |outcome| (index, outcome)));
            }
            let Some((index, outcome)) = running.next().await else {
                if self.apart.is_empty() {
                    break;
                }
                // What is to become a job may be what holds up the rest.
                self.write_apart().await?;
                continue;
            };
            self.ended(index, outcome);
            if self.apart.len() >= APART || reported.elapsed() >= REPORT {
                self.write_apart().await?;
                self.report()?;
                reported = Instant::now();
            }
            // Handlers that never wait must not hold up whatever else there is to do.
            tokio::task::coop::consume_budget().await;
        }
        self.write_apart().await?;
        if self.done.until as usize >= self.bundle.payloads.len() {
            return Ok(Outcome::Success(None));
        }
        self.report()?;
        Ok(Outcome::Interrupted)
    }

    /// The next payload that is not done, unless it lies too far ahead of one that runs.
    fn next(&self, next: &mut u32) -> Option<u32> {
        let apart = |index: u32| self.apart.iter().any(|(apart, _)| *apart == index);
        *next = (*next).max(self.done.until);
        while self.done.has(*next) || apart(*next) {
            *next += 1;
        }
        let there = (*next as usize) < self.bundle.payloads.len() && *next < self.done.until + WINDOW;
        there.then(|| {
            *next += 1;
            *next - 1
        })
    }

    /// A payload as the job that it would be alone.
    fn part(&self, index: u32) -> LeasedJob {
        let mut leased = self.attempt.leased().clone();
        let (job, terms) = (&mut leased.job, &self.bundle.terms);
        job.id = JobId::of_payload(self.attempt.id(), index);
        job.kind = self.kind.clone();
        job.payload = self.bundle.payloads[index as usize].clone();
        (job.attempt, job.crashes, job.progress) = (1, 0, None);
        job.options.max_attempts = terms.max_attempts;
        job.options.crash_budget = terms.crash_budget;
        job.options.timeout = terms.timeout;
        leased
    }

    /// Notes how a payload's run ended.
    fn ended(&mut self, index: u32, outcome: Outcome) {
        let failure = match &outcome {
            Outcome::Success(_) => return self.done.add(index),
            Outcome::Failure(failure) => Some(failure.clone()),
            // Told to end: of this one nothing is known.
            Outcome::Interrupted | Outcome::Released => return,
            _ => None,
        };
        let part = self.part(index).job;
        if let Some(failure) = &failure {
            self.attempt.failed(&part, failure);
        }
        let policy = self.attempt.policy(&self.kind);
        let Decision { verdict, .. } = after_attempt(outcome, &part, policy, fastrand::f64());
        match verdict {
            Verdict::Succeed { .. } | Verdict::Cancel { .. } => self.done.add(index),
            Verdict::Retry { delay, .. } | Verdict::Release { delay, .. } => {
                self.set_apart(index, delay, failure.as_ref());
            }
            // It is to be seen as a job that has failed, which takes an attempt of its own.
            Verdict::Fail { .. } => self.set_apart(index, Duration::ZERO, failure.as_ref()),
        }
    }

    /// Has a payload become a job of its own: the same one however often it is made.
    fn set_apart(&mut self, index: u32, delay: Duration, failure: Option<&JobFailure>) {
        let JobRecord { id, queue, kind, payload, mut options, .. } = self.part(index).job;
        // It has run once.
        options.max_attempts = options.max_attempts.saturating_sub(1).max(1);
        let limits = self.attempt.store().limits();
        if let Some(failure) = failure {
            let mut text = failure.to_string();
            limits::cut(&mut text, FAILURE_BYTES);
            let used: usize = options.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            let fits = used + FIRST_FAILURE.len() + text.len() <= limits.headers_bytes;
            if fits && options.headers.len() < limits.headers {
                options.headers.insert(FIRST_FAILURE.into(), text);
            }
        }
        let mut job = NewJob::new(kind, payload).id(id).queue(queue).delay(delay);
        job.options = options;
        self.apart.push((index, job));
    }

    /// Enqueues the jobs that payloads are to become, however long that takes, and notes that these are done.
    async fn write_apart(&mut self) -> Result<()> {
        let mut pause = Duration::from_millis(100);
        while !self.apart.is_empty() {
            let queue = self.attempt.store().queue(self.attempt.job().queue.clone())?;
            let jobs: Vec<NewJob> = self.apart.iter().map(|(_, job)| job.clone()).collect();
            match queue.enqueue_all(jobs).await {
                Ok(answers) => {
                    for ((index, _), answer) in std::mem::take(&mut self.apart).into_iter().zip(answers) {
                        if let EnqueueAnswer::Refused(error) = answer.answer {
                            return Err(error);
                        }
                        self.done.add(index);
                    }
                }
                Err(error) if error.is_transient() && !self.attempt.is_cancelled() => {
                    tracing::warn!(%error, "payloads that failed could not become jobs; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells which payloads are done. It is written with the next renewal of the lease.
    fn report(&self) -> Result<()> {
        let why = |error| Error::invalid("a cursor cannot be written").caused_by(error);
        let cursor = serde_json::to_string(&self.done).map_err(why)?;
        let total = Some(self.bundle.payloads.len() as u64);
        let progress =
            Progress { done: self.done.count(), total, cursor: Some(cursor), ..Progress::default() };
        self.attempt.progress(progress);
        Ok(())
    }
}

/// Runs one payload, which fails, panics, runs too long and ends itself for itself alone.
async fn one(attempt: Attempt, leased: LeasedJob) -> Outcome {
    let Some((route, options)) = attempt.routes().of(&leased.job.kind) else {
        let failure = JobFailure::error("unknown_kind", format!("no handler for {}", leased.job.kind));
        return Outcome::Failure(JobFailure { reason: Reason::UnknownKind, ..failure });
    };
    let timeout = leased.job.options.timeout.or(options.timeout).unwrap_or(attempt.timeout());
    let part = attempt.apart(leased);
    let run = AssertUnwindSafe(part.scope(route.clone().oneshot(part.clone()))).catch_unwind();
    let outcome = tokio::select! {
        biased;
        (ended, place) = panics::noted(run) => match ended {
            Ok(ended) => ended.unwrap_or_else(HandlerError::into_outcome),
            Err(payload) => Outcome::Failure(panics::failure(payload, place)),
        },
        () = part.decided() => Outcome::Released,
        () = tokio::time::sleep(timeout) => Outcome::Failure(JobFailure {
            reason: Reason::Timeout,
            ..JobFailure::error("timeout", format!("ran longer than its time-out of {timeout:?}"))
        }),
    };
    part.decision().unwrap_or(outcome)
}

/// A handler of payloads, some of which come back by themselves.
#[derive(Clone)]
pub(super) struct PushedBack<H>(pub(super) H);

impl<A: 'static, H: Handler<A>> Handler<A> for PushedBack<H> {
    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        if !attempt.job().options.headers.contains_key(PUSHED_BACK) {
            return self.0.call(attempt);
        }
        let handler = self.0.clone();
        async move {
            match push_back(&attempt).await {
                Ok(()) => handler.call(attempt).await,
                Err(error) => Outcome::Failure(error_of(&error)),
            }
        }
        .boxed()
    }

    fn grace(&self) -> Option<Duration> {
        self.0.grace()
    }
}

/// Enqueues the payload once more, for later, in each attempt: nobody can tell whether the one before came so far. It is
/// the same job each time.
async fn push_back(attempt: &Attempt) -> Result<()> {
    let record = attempt.job();
    let after = record.options.headers.get(PUSHED_BACK).and_then(|millis| millis.parse().ok());
    let after = Duration::from_millis(after.ok_or_else(|| Error::invalid("no span to come back after"))?);
    let mut job = NewJob::new(record.kind.clone(), record.payload.clone());
    job = job.id(JobId::of_pushed_back(record.id, record.generation)).queue(record.queue.clone());
    job.options = record.options.clone();
    job.due = Due::In(after.min(limits::SPAN));
    if let Some(unique) = job.options.unique.take() {
        // Whoever added it again meanwhile has said when.
        job.options.unique = Some(unique.on_conflict(OnConflict::Keep));
    }
    attempt.store().queue(record.queue.clone())?.enqueue(job).await.map(drop)
}
