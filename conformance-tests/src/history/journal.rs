use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::backend::{Counts, List};
use leasehold_core::{
    Backend, Clock, Deadline, Error, ErrorKind, JobId, LeaseToken, ManualClock, Result, WorkerId,
};

use super::clock::monotonic;
use super::event::{Attempt, Event, Fault, Seen, What};
use super::keeping::seen;
use super::sink::Sink;

/// One process's pen: what it writes is in the history at once. Clones are the same process.
#[derive(Clone)]
pub struct Journal {
    process: Arc<str>,
    sink: Arc<dyn Sink>,
    calls: Arc<AtomicU64>,
}

impl Journal {
    /// The journal of this process. Give each start of a process a name of its own, such as `w3#2`.
    pub fn new(process: impl Into<Arc<str>>, sink: Arc<dyn Sink>) -> Self {
        Self { process: process.into(), sink, calls: Arc::default() }
    }

    /// A handler begins: call it before anything else in it.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) if it cannot be written; so with all that follow.
    pub fn start(&self, job: JobId, token: LeaseToken) -> Result<()> {
        self.write(0, What::Start(Attempt { job, token }))
    }

    /// A handler had its effect on the world.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn effect(&self, job: JobId, token: LeaseToken) -> Result<()> {
        self.write(0, What::Effect(Attempt { job, token }))
    }

    /// A handler has ended.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn end(&self, job: JobId, token: LeaseToken) -> Result<()> {
        self.write(0, What::End(Attempt { job, token }))
    }

    /// Something is about to be broken on purpose.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn fault(&self, what: impl Into<String>) -> Result<()> {
        self.write(0, What::Fault(Fault { what: what.into(), kills: None, step: 0 }))
    }

    /// A process was killed: nothing of it follows.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn killed(&self, process: &str) -> Result<()> {
        let what = format!("{process} was killed");
        self.write(0, What::Fault(Fault { what, kills: Some(process.into()), step: 0 }))
    }

    /// The store's clock was set on or back by so many milliseconds.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn clock_step(&self, step: i64) -> Result<()> {
        self.write(0, What::Fault(Fault { what: format!("the clock steps by {step} ms"), kills: None, step }))
    }

    /// A worker was stopped, and its stop has come to an end: it claims nothing more and holds nothing.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn stopped(&self, worker: WorkerId) -> Result<()> {
        self.write(0, What::Stopped { worker })
    }

    /// A remark for whoever reads the history.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn note(&self, text: impl Into<String>) -> Result<()> {
        self.write(0, What::Note { text: text.into() })
    }

    /// Says what hour it is by the store's manual clock: first of all, where there is one.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn manual_clock(&self, clock: &ManualClock) -> Result<()> {
        self.write(0, What::Clock { to: clock.now(), done: true })
    }

    /// Moves the store's manual clock forward. Only one task of a history does so.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn advance(&self, clock: &ManualClock, span: Duration) -> Result<()> {
        let to = clock.now().plus(span);
        self.write(0, What::Clock { to, done: false })?;
        clock.set(to);
        self.write(0, What::Clock { to, done: true })
    }

    /// Writes down every job there is and the counts, when all is over and nobody else writes any more.
    ///
    /// # Errors
    /// Those of listing and counting the jobs, and see [`start`](Self::start).
    pub async fn last_look(&self, backend: &dyn Backend) -> Result<()> {
        let counts = backend.counts(Deadline::default(), Counts::default()).await?;
        self.write(0, What::LastCounts { counts })?;
        let (filter, order) = Default::default();
        let mut list = List { filter, order, after: None, limit: 500 };
        let mut jobs = 0;
        loop {
            let page = backend.list(Deadline::default(), list.clone()).await?;
            jobs += page.jobs.len();
            for job in &page.jobs {
                self.last(seen(job))?;
            }
            list.after = page.next;
            if list.after.is_none() {
                return self.write(0, What::LastOfAll { jobs });
            }
        }
    }

    fn last(&self, job: Seen) -> Result<()> {
        self.write(0, What::Last(job))
    }

    /// A number for a call that begins.
    pub(crate) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn write(&self, op: u64, what: What) -> Result<()> {
        let event = Event { t: monotonic(), p: self.process.as_ref().into(), op, what };
        let why = |error| Error::new(ErrorKind::Internal, "the history cannot be written").caused_by(error);
        self.sink.write(&event).map_err(why)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("process", &self.process).finish_non_exhaustive()
    }
}
