//! Payloads of raw queues: those that a bundle carries, and those that come back by themselves.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;

use super::attempt::Attempt;
use super::handler::Handler;
use super::options::RawOptions;
use super::panics;
use crate::backend::{EnqueueAnswer, Enqueued, Verdict};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::job::{Bundle, Due, JobRecord, LeasedJob, NewJob, OnConflict, PUSHED_BACK, Progress, Reason};
use crate::limits;
use crate::name::{Kind, QueueName};
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
            let course = Course::new(attempt, bundle, this);
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
    /// Whether a worker has died over the bundle.
    careful: bool,
    done: Done,
    /// From here on no payload was begun.
    next: u32,
    /// Payloads that are to become jobs of their own. They are not done before they have.
    apart: Vec<(u32, NewJob)>,
    /// Whether more is known than was reported.
    news: bool,
    /// When news is to be reported.
    due: Instant,
    /// Why a payload could not become a job.
    error: Option<Error>,
}

impl Course {
    fn new(attempt: Attempt, bundle: Bundle, Bundled { kind, options }: Bundled) -> Self {
        let careful = attempt.job().crashes > 0;
        let done = attempt.cursor::<Done>().ok().flatten().unwrap_or_default();
        let due = Instant::now() + REPORT;
        let (next, apart, news, error) = (0, Vec::new(), false, None);
        Self { attempt, bundle, kind, options, careful, done, next, apart, news, due, error }
    }

    /// Once a worker has died over this bundle, each payload is told before it begins: the one at which another
    /// worker dies becomes a job of its own, with a crash budget of its own, and costs the others nothing.
    async fn run(mut self) -> Result<Outcome> {
        let most = if self.careful { 1 } else { self.options.concurrency };
        let killer = self.done.at.take().filter(|at| self.careful && !self.done.has(*at));
        if let Some(killer) = killer {
            let failure = JobFailure::error("crash", "a worker died while it ran in a bundle");
            self.set_apart(killer, Duration::ZERO, Some(&failure), None);
            // Before another is told in its place.
            let written = self.write_apart().await;
            self.written(written);
        }
        let (mut running, mut writing) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut alarm = std::pin::pin!(sleep_until(self.due));
        loop {
            while running.len() < most
                && let Some(index) = self.begin().await?
            {
                let part = self.part(index);
                running.push(one(self.attempt.clone(), part).map(move |outcome| (index, outcome)));
            }
            if running.is_empty() && writing.is_empty() && (self.apart.is_empty() || self.error.is_some()) {
                break;
            }
            if writing.is_empty() && self.is_to_write(running.is_empty()) {
                writing.push(self.write_apart());
            }
            if self.news && self.is_due() {
                self.report()?;
                alarm.as_mut().reset(self.due);
            }
            // Those that never wait must not hold up what is being written.
            tokio::select! {
                biased;
                Some(written) = writing.next() => self.written(written),
                Some((index, outcome)) = running.next() => self.ended(index, outcome),
                () = &mut alarm, if self.news => {}
            }
            // Nor whatever else there is to do.
            tokio::task::coop::consume_budget().await;
        }
        match self.error.take() {
            Some(error) => Err(error),
            None if self.is_done() => Ok(Outcome::Success(None)),
            None => Ok(Outcome::Interrupted),
        }
    }

    /// The next payload to run, if one is to be begun now.
    async fn begin(&mut self) -> Result<Option<u32>> {
        if self.attempt.is_cancelled() || self.error.is_some() {
            return Ok(None);
        }
        let index = self.next();
        if self.careful && index.is_some() {
            self.done.at = index;
            self.attempt.save_cursor(&self.done).await?;
        }
        Ok(index)
    }

    fn is_done(&self) -> bool {
        self.done.until as usize >= self.bundle.payloads.len()
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Whether jobs are to be made now. If nothing runs, these may be what holds up the rest.
    fn is_to_write(&self, idle: bool) -> bool {
        let there = !self.apart.is_empty() && self.error.is_none();
        there && (idle || self.apart.len() >= APART || self.is_due())
    }

    /// The next payload that is not done, unless it lies too far ahead of one that runs.
    fn next(&mut self) -> Option<u32> {
        let apart = |index: u32| self.apart.iter().any(|(apart, _)| *apart == index);
        let mut next = self.next.max(self.done.until);
        while self.done.has(next) || apart(next) {
            next += 1;
        }
        let there = (next as usize) < self.bundle.payloads.len() && next < self.done.until + WINDOW;
        self.next = next + u32::from(there);
        there.then_some(next)
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
        self.news = true;
        let failure = match &outcome {
            Outcome::Success(_) => return self.done.add(index),
            // Told to end: of this one nothing is known, and an error may be the way it ended itself.
            Outcome::Failure(_) | Outcome::Interrupted | Outcome::Released if self.attempt.is_cancelled() => {
                return;
            }
            Outcome::Failure(failure) => Some(failure.clone()),
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
            Verdict::Retry { delay, queue, .. } => self.set_apart(index, delay, failure.as_ref(), queue),
            Verdict::Release { delay, .. } => self.set_apart(index, delay, failure.as_ref(), None),
            // It is to be seen as a job that has failed, which takes an attempt of its own.
            Verdict::Fail { .. } => self.set_apart(index, Duration::ZERO, failure.as_ref(), None),
        }
    }

    /// Has a payload become a job of its own: the same one however often it is made.
    fn set_apart(
        &mut self,
        index: u32,
        delay: Duration,
        failure: Option<&JobFailure>,
        elsewhere: Option<QueueName>,
    ) {
        let JobRecord { id, queue, kind, payload, mut options, .. } = self.part(index).job;
        let queue = elsewhere.unwrap_or(queue);
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

    /// Has the jobs be made that payloads are to become, the first ones of one queue; answers how that went for each of the
    /// first so many.
    fn write_apart(&self) -> BoxFuture<'static, Vec<Result<()>>> {
        let jobs = self.apart.iter().map(|(_, job)| job);
        let first = self.apart.first().map(|(_, job)| &job.queue);
        let jobs = jobs.take_while(|job| Some(&job.queue) == first).cloned().collect();
        write(self.attempt.clone(), jobs).boxed()
    }

    /// Notes which payloads have become jobs, and are done therefore.
    fn written(&mut self, answers: Vec<Result<()>>) {
        let answered = self.apart.drain(..answers.len());
        for ((index, _), answer) in answered.zip(answers) {
            match answer {
                Ok(()) => self.done.add(index),
                Err(error) => drop(self.error.get_or_insert(error)),
            }
        }
        (self.news, self.due) = (true, Instant::now());
    }

    /// Tells which payloads are done. It is written with the next renewal of the lease.
    fn report(&mut self) -> Result<()> {
        (self.news, self.due) = (false, Instant::now() + REPORT);
        let why = |error| Error::invalid("a cursor cannot be written").caused_by(error);
        let cursor = serde_json::to_string(&self.done).map_err(why)?;
        let total = Some(self.bundle.payloads.len() as u64);
        let progress =
            Progress { done: self.done.count(), total, cursor: Some(cursor), ..Progress::default() };
        self.attempt.progress(progress);
        Ok(())
    }
}

/// However the course ends, by itself or because it is cut off: what is done stays done.
impl Drop for Course {
    fn drop(&mut self) {
        if self.news
            && !self.is_done()
            && let Err(error) = self.report()
        {
            tracing::warn!(%error, "what was done of a record is not known");
        }
    }
}

/// Enqueues jobs, however long that takes; one that is refused costs the others nothing. Answers for each, up to the first
/// that could not be sent.
async fn write(attempt: Attempt, jobs: Vec<NewJob>) -> Vec<Result<()>> {
    match enqueue(&attempt, jobs.clone()).await {
        Ok(answers) => answers,
        Err(error) if error.is_refusal() && jobs.len() > 1 => {
            let mut answers = Vec::with_capacity(jobs.len());
            for job in jobs {
                answers.push(enqueue(&attempt, vec![job]).await.and_then(|mut alone| alone.remove(0)));
            }
            answers
        }
        Err(error) => vec![Err(error)],
    }
}

/// Enqueues jobs, as often as it takes unless the attempt is told to end.
async fn enqueue(attempt: &Attempt, jobs: Vec<NewJob>) -> Result<Vec<Result<()>>> {
    let queue = jobs.first().map_or(&attempt.job().queue, |job| &job.queue);
    let queue = attempt.store().queue(queue.clone())?;
    let mut pause = Duration::from_millis(100);
    loop {
        let error = match queue.enqueue_all(jobs.clone()).await {
            Ok(answers) => return Ok(answers.into_iter().map(taken_in).collect()),
            Err(error) => error,
        };
        if !error.is_transient() || attempt.is_cancelled() {
            return Err(error);
        }
        tracing::warn!(%error, "payloads that failed could not become jobs; trying again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = attempt.cancelled() => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

fn taken_in(answer: Enqueued) -> Result<()> {
    match answer.answer {
        EnqueueAnswer::Refused(error) => Err(error),
        _ => Ok(()),
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
    let answers = attempt.store().queue(record.queue.clone())?.enqueue_keyed(vec![job]).await?;
    answers.into_iter().try_for_each(taken_in)
}
