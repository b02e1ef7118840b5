//! The attempt that some code is a part of, however deep it lies.

use std::future::{Future, pending};

use futures::stream::{self, Stream, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::attempt::Attempt;
use crate::job::{IntoJob, LeasedJob, Payload, Reason};
use crate::policy::{HandlerError, JobFailure, Outcome};

tokio::task_local! {
    static CURRENT: Attempt;
}

impl Attempt {
    /// The attempt that this code is a part of: in a handler and whatever it awaits. Tasks that it spawns are a part of it
    /// if they are [put into it](Self::scope).
    ///
    /// ```
    /// use leasehold_core::Attempt;
    ///
    /// // Somewhere in a library that knows of no job.
    /// fn progress(message: &str) {
    ///     if let Some(attempt) = Attempt::current() {
    ///         attempt.progress(leasehold_core::Progress { message: message.into(), ..Default::default() });
    ///     }
    /// }
    /// ```
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Does `work` as a part of this attempt.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        CURRENT.scope(self.clone(), work).await
    }

    /// Ends the attempt here, from however deep inside, also through code that would swallow an error: the handler is
    /// dropped where it is, and what it would return counts no more. This call never returns.
    ///
    /// ```
    /// use std::time::Duration;
    /// use leasehold_core::Attempt;
    /// use leasehold_core::policy::Control;
    ///
    /// async fn fetch(url: &str) -> Option<String> {
    ///     if url.is_empty() {
    ///         let attempt = Attempt::current()?;
    ///         attempt.end(Control::Snooze(Duration::from_secs(60))).await;
    ///     }
    ///     Some(url.to_owned())
    /// }
    /// ```
    pub async fn end(&self, how: impl Into<Outcome>) -> ! {
        self.will_end(how);
        pending().await
    }

    /// Decides how the attempt ends, for code that cannot await: its handler is dropped where it next awaits, and what
    /// it returns counts no more. The first decision counts; a panic outweighs it.
    pub fn will_end(&self, how: impl Into<Outcome>) {
        self.decide(how.into());
    }

    /// Runs the worker's handler for another kind of job as a part of this attempt: its progress, its log and its end are
    /// those of this job, which is all that the store knows of it. What the job says but for its kind and its payload is
    /// not heeded.
    ///
    /// # Errors
    /// A failure of it. If it ends in another way than by success or failure, so does the whole attempt, and this call
    /// does not return.
    pub async fn run(&self, job: impl IntoJob) -> Result<Option<Payload>, JobFailure> {
        let job =
            job.into_job().map_err(|error| JobFailure::error("bad_payload", error.message()).permanent())?;
        let Some((route, _)) = self.routes().of(&job.kind) else {
            let failure = JobFailure::error("unknown_kind", format!("no handler for {}", job.kind));
            return Err(JobFailure { reason: Reason::UnknownKind, ..failure });
        };
        let mut leased: LeasedJob = self.leased().clone();
        (leased.job.kind, leased.job.payload) = (job.kind, job.payload);
        let part = self.part(leased);
        let ended = part.scope(tower::ServiceExt::oneshot(route.clone(), part.clone())).await;
        match ended.unwrap_or_else(HandlerError::into_outcome) {
            Outcome::Success(result) => Ok(result),
            Outcome::Failure(failure) => Err(failure),
            other => self.end(other).await,
        }
    }

    /// Does `work` with each item as a part of this attempt, `most` at the same time, each in a task of its own. Gives
    /// what comes of them in the order of the items. Dropping the stream ends those that run, and so does the end
    /// of the handler; collect into a `Result` to have the first error end them. A panic goes on in whoever reads.
    ///
    /// ```
    /// use futures::TryStreamExt;
    /// use leasehold_core::Attempt;
    /// use leasehold_core::policy::BoxError;
    ///
    /// async fn sizes(attempt: Attempt) -> Result<(), BoxError> {
    ///     let files = vec!["a", "b", "c"];
    ///     let size = |file| async move { Ok::<_, std::io::Error>(std::fs::metadata(file)?.len()) };
    ///     let _sizes: Vec<u64> = attempt.map(files, 2, size).try_collect().await?;
    ///     Ok(())
    /// }
    /// ```
    pub fn map<I, F>(
        &self,
        items: I,
        most: usize,
        work: impl Fn(I::Item) -> F,
    ) -> impl Stream<Item = F::Output>
    where
        I: IntoIterator,
        F: Future<Output: Send> + Send + 'static,
    {
        self.parts(items, work).buffered(most.max(1))
    }

    /// Like [`map`](Self::map), but gives what comes of them as it comes.
    pub fn map_unordered<I, F>(
        &self,
        items: I,
        most: usize,
        work: impl Fn(I::Item) -> F,
    ) -> impl Stream<Item = F::Output>
    where
        I: IntoIterator,
        F: Future<Output: Send> + Send + 'static,
    {
        self.parts(items, work).buffer_unordered(most.max(1))
    }

    fn parts<I, F>(
        &self,
        items: I,
        work: impl Fn(I::Item) -> F,
    ) -> impl Stream<Item = impl Future<Output = F::Output>>
    where
        I: IntoIterator,
        F: Future<Output: Send> + Send + 'static,
    {
        let attempt = self.clone();
        stream::iter(items).map(move |item| {
            let part = CURRENT.scope(attempt.clone(), work(item)).in_current_span();
            let task = AbortOnDropHandle::new(tokio::spawn(part));
            async {
                match task.await {
                    Ok(done) => done,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // The runtime shuts down, and takes the handler with it.
                    Err(_) => pending().await,
                }
            }
        })
    }
}
