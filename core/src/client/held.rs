use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::hold::Hold;
use super::store::Store;
use crate::backend::{
    Answer, AppendLogs, Level, LogAppend, NewLine, Renew, Renewal, Renewed, Settle, Settlement, Verdict,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Known, Member};
use crate::job::{JobRecord, LeasedJob, Payload, Progress, Reason};
use crate::name::QueueName;
use crate::policy::{
    Decision, HandlerError, JobFailure, LeaseTimes, Outcome, RetryPolicy, after_attempt, after_refusal,
};
use crate::time::Deadline;
use crate::worker::panics::message;

/// How long what is said is gathered, so that much of it makes one write.
const GATHER: Duration = Duration::from_millis(50);
/// How long what was said last may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Jobs that were dropped while held, to be given back at the next occasion.
pub(super) type Abandoned = Arc<Mutex<Vec<Settlement>>>;

/// A job held by hand, under a lease.
///
/// It must be ended, by one of the methods that take it, or [renewed](Self::renew) before its lease is over.
/// Dropped unended, it is given back with its attempt when its [`Consumer`](super::Consumer) is next used,
/// or taken back when its lease runs out.
///
/// An end that the store did not answer is handed in again when the consumer is next used or closed. One that it
/// refused, such as a result that is too large, would be refused again: the job fails for it instead.
///
/// Every method that ends it fails with [`Conflict`](ErrorKind::Conflict) if the lease was lost: somebody
/// else may run the job by then, and nothing was changed (clause C2).
#[must_use = "a held job that is dropped is given back"]
pub struct HeldJob {
    store: Store,
    leased: LeasedJob,
    /// When the claim or the latest renewal was asked for.
    asked_at: Instant,
    policy: RetryPolicy,
    abandoned: Abandoned,
    /// How many log lines were written under this lease.
    lines: u64,
    /// What is handed in when this is dropped; none once it has ended.
    last_words: Option<Settlement>,
}

impl HeldJob {
    pub(super) fn new(
        store: Store,
        leased: LeasedJob,
        asked_at: Instant,
        policy: RetryPolicy,
        abandoned: Abandoned,
    ) -> Self {
        let verdict = Verdict::Release { reason: Reason::Released, delay: Duration::ZERO };
        let (job, token) = (leased.job.id, leased.token);
        let last_words = Some(Settlement { job, token, verdict, failure: None });
        Self { store, leased, asked_at, policy, abandoned, lines: 0, last_words }
    }

    /// Whether the lease is fresh, or could be renewed.
    pub(super) async fn is_held(&mut self) -> Result<bool> {
        if self.asked_at.elapsed() < self.times().renew {
            return Ok(true);
        }
        match self.renew().await {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            renewed => renewed.map(|_| true),
        }
    }

    fn times(&self) -> LeaseTimes {
        LeaseTimes::of(self.leased.lease)
    }

    /// The job.
    pub fn job(&self) -> &JobRecord {
        &self.leased.job
    }

    /// The job and its lease.
    pub fn leased(&self) -> &LeasedJob {
        &self.leased
    }

    /// Ends it as succeeded, with a result or without.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn complete(self, result: Option<Payload>) -> Result<()> {
        self.end(Outcome::Success(result)).await
    }

    /// Ends the attempt as failed: tried again by the retry policy, or ended if that says so.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn fail(self, error: impl HandlerError) -> Result<()> {
        self.end(error.into_outcome()).await
    }

    /// Has it tried again after `delay`; the attempt stays spent.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn retry(self, delay: Duration) -> Result<()> {
        self.end(Outcome::RetryRequested { after: Some(delay), message: String::new(), queue: None }).await
    }

    /// Has it tried again in another queue after `delay`; the attempt stays spent.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`]; [`InvalidInput`](ErrorKind::InvalidInput) for a name that is none, and
    /// then the job is given back when the consumer is next used.
    pub async fn retry_in<Q>(self, queue: Q, delay: Duration) -> Result<()>
    where
        Q: TryInto<QueueName>,
        Error: From<Q::Error>,
    {
        let queue = Some(queue.try_into()?);
        self.end(Outcome::RetryRequested { after: Some(delay), message: String::new(), queue }).await
    }

    /// Gives it back untouched, with its attempt, to its place in the queue.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn release(self) -> Result<()> {
        self.end(Outcome::Released).await
    }

    /// Renews the lease. Answers whether somebody asked to cancel the job.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn renew(&mut self) -> Result<bool> {
        self.extend(None, self.store.deadline()).await
    }

    /// Records how far the job has come, and renews the lease. Answers whether somebody asked to cancel it.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn progress(&mut self, progress: Progress) -> Result<bool> {
        self.extend(Some(progress), self.store.deadline()).await
    }

    /// Adds a line to its capped log.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn log(&mut self, level: Level, message: impl Into<String>) -> Result<()> {
        let line = NewLine { level, message: message.into() };
        self.append(self.lines, vec![line], self.store.deadline()).await?;
        self.lines += 1;
        Ok(())
    }

    /// Lets go what waited for it in its flow, if it is of one. What fails is made up for when its flow is looked at.
    async fn lead_on(&self, verdict: &Verdict) {
        let Some(member) = Member::of(&self.leased.job) else { return };
        let Some(known) = Known::by(verdict) else { return };
        if self.leased.job.generation > 0 {
            self.store.flow_cache().doubt(member.flow);
        }
        if let Err(error) = self.store.flows().settled(member.flow, &[(member.index, known)]).await {
            tracing::warn!(%error, flow = %member.flow, "a flow could not be led on yet");
        }
    }

    async fn append(&mut self, position: u64, lines: Vec<NewLine>, deadline: Deadline) -> Result<()> {
        let append = LogAppend { job: self.leased.job.id, token: self.leased.token, position, lines };
        let answers =
            self.store.backend().append_logs(deadline, AppendLogs { appends: vec![append] }).await?;
        match answers.first() {
            Some(Answer::Applied | Answer::AlreadyApplied) => Ok(()),
            _ => Err(self.lost()),
        }
    }

    /// Ends it however `outcome` and the retry policy say.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn end(mut self, outcome: Outcome) -> Result<()> {
        let Decision { verdict, failure } =
            after_attempt(outcome, &self.leased.job, &self.policy, fastrand::f64());
        let mut settlement =
            Settlement { job: self.leased.job.id, token: self.leased.token, verdict, failure };
        let request = Settle { settlements: vec![settlement.clone()] };
        match self.store.backend().settle(self.store.deadline(), request).await {
            Ok(answers) => {
                self.last_words = None;
                match answers.first() {
                    Some(Answer::Applied | Answer::AlreadyApplied) => {
                        self.lead_on(&settlement.verdict).await;
                        Ok(())
                    }
                    _ => Err(self.lost()),
                }
            }
            Err(error) => {
                if error.is_refusal() {
                    let Decision { verdict, failure } = after_refusal(&error);
                    (settlement.verdict, settlement.failure) = (verdict, failure);
                }
                self.last_words = Some(settlement);
                Err(error)
            }
        }
    }

    /// Runs `work` on it while the lease is kept alive, and ends it: as succeeded with what `work` returns,
    /// as failed with its error or its panic, which goes on after the job is settled. `work` may say by the [`Hold`]
    /// how far it has come, and what belongs into the job's log.
    ///
    /// ```no_run
    /// # use leasehold_core::{HeldJob, Progress, policy::BoxError};
    /// # async fn example(held: HeldJob) -> leasehold_core::Result<()> {
    /// held.run(|job| async move {
    ///     let pages: Vec<String> = job.payload.parse()?;
    ///     for (done, page) in (1..).zip(&pages) {
    ///         // ... read the page ...
    ///         job.progress(Progress { done, message: page.clone(), ..Progress::default() });
    ///     }
    ///     Ok::<_, BoxError>(None)
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// `work` is dropped when somebody cancels the job, and before the lease ends if it cannot be renewed.
    ///
    /// # Errors
    /// Those named at [`HeldJob`] and [`Store`].
    pub async fn run<F, E>(mut self, work: impl FnOnce(Hold) -> F) -> Result<()>
    where
        F: Future<Output = Result<Option<Payload>, E>>,
        E: HandlerError,
    {
        let hold = Hold::new(self.leased.job.clone(), self.lines);
        let work = AssertUnwindSafe(work(hold.clone())).catch_unwind();
        let ended = tokio::select! {
            biased;
            ended = work => ended,
            cancelled = self.keep(&hold) => {
                cancelled?;
                let _ = tokio::time::timeout(LAST_WORDS, self.write(&hold)).await;
                return self.end(Outcome::Cancelled).await;
            }
        };
        // Once the attempt is settled the store takes it no more; the job is settled all the same (L4).
        let _ = tokio::time::timeout(LAST_WORDS, self.write(&hold)).await;
        match ended {
            Ok(Ok(result)) => self.end(Outcome::Success(result)).await,
            Ok(Err(error)) => self.end(error.into_outcome()).await,
            Err(panic) => {
                let failure =
                    JobFailure { reason: Reason::Panic, ..JobFailure::error("panic", message(&*panic)) };
                let settled = self.end(Outcome::Failure(failure)).await;
                if let Err(error) = settled {
                    tracing::error!(%error, "a panicked job could not be settled");
                }
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// Renews the lease until somebody asks to cancel the job, or until it is lost (clause C2a).
    async fn keep(&mut self, hold: &Hold) -> Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.asked_at + self.times().renew) => {}
                () = hold.more() => {
                    tokio::time::sleep(GATHER.min(self.leased.lease / 20)).await;
                    self.append_said(hold).await;
                    if hold.latest().is_none() && self.asked_at.elapsed() < self.times().renew {
                        continue;
                    }
                }
            }
            if self.left().is_zero() {
                return Err(self.lost());
            }
            match self.renew_with(hold).await {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the lease could not be renewed yet");
                    tokio::time::sleep(self.leased.lease / 20).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How long the lease is safe.
    fn left(&self) -> Duration {
        (self.asked_at + self.times().fence).saturating_duration_since(Instant::now())
    }

    /// A deadline by which a call that hangs leaves time for another.
    fn hasty(&self) -> Deadline {
        Deadline::after((self.left() / 2).clamp(Duration::from_millis(1), Deadline::DEFAULT))
    }

    async fn renew_with(&mut self, hold: &Hold) -> Result<bool> {
        let progress = hold.latest();
        let renewed = self.extend(progress.clone(), self.hasty()).await;
        if let Some(progress) = progress
            && renewed.as_ref().map_or_else(Error::is_refusal, |_| true)
        {
            hold.written(&progress);
        }
        match renewed {
            // What is said must not cost the lease.
            Err(error) if error.is_refusal() => self.extend(None, self.hasty()).await,
            renewed => renewed,
        }
    }

    /// Writes the lines that were said. A log that cannot be written is nobody's failure (clause L4).
    async fn append_said(&mut self, hold: &Hold) {
        let (position, lines) = hold.lines();
        let end = position + lines.len() as u64;
        if lines.is_empty() {
            return;
        }
        match self.append(position, lines, self.hasty()).await {
            Ok(()) => hold.taken_until(end),
            Err(error) => {
                tracing::warn!(%error, "log lines could not be written");
                if !error.is_transient() {
                    hold.taken_until(end);
                }
            }
        }
    }

    /// Writes all that was said and is not written.
    async fn write(&mut self, hold: &Hold) {
        self.append_said(hold).await;
        if hold.latest().is_some()
            && let Err(error) = self.renew_with(hold).await
        {
            tracing::warn!(%error, "the job's last progress could not be written");
        }
    }

    async fn extend(&mut self, progress: Option<Progress>, deadline: Deadline) -> Result<bool> {
        let Self { leased: LeasedJob { job, token, lease, .. }, .. } = &*self;
        // A cursor stays until there is another.
        let before = job.progress.as_ref().and_then(|progress| progress.cursor.clone());
        let progress =
            progress.map(|progress| Progress { cursor: progress.cursor.clone().or(before), ..progress });
        let told = progress.clone();
        let renewal = Renewal { job: job.id, token: *token, lease: *lease, progress };
        let (asked_at, request) = (Instant::now(), Renew { renewals: vec![renewal] });
        match self.store.backend().renew(deadline, request).await?.first() {
            Some(Renewed::Held { until, cancel_requested }) => {
                self.asked_at = asked_at;
                self.leased.job.lease_until = Some(*until);
                self.leased.job.progress = told.or(self.leased.job.progress.take());
                Ok(*cancel_requested)
            }
            _ => {
                self.last_words = None;
                Err(self.lost())
            }
        }
    }

    fn lost(&self) -> Error {
        let job = self.leased.job.id;
        Error::new(
            ErrorKind::Conflict,
            format!("the lease on job {job} was lost; whoever holds it now will end it"),
        )
    }
}

impl Drop for HeldJob {
    fn drop(&mut self) {
        if let Some(settlement) = self.last_words.take() {
            self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(settlement);
        }
    }
}

impl fmt::Debug for HeldJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldJob").field(&self.leased.job).finish()
    }
}
