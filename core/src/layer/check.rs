mod admitting;

use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::Operation;
use crate::backend::{
    Action, Amend, AppendLogs, Backend, CheckIn, Claim, Counts, Cursor, DeleteRegister, Enqueue, Expired,
    Filter, Find, KindRule, List, Pause, Prune, PutRegister, ReadLogs, Recover, Registers, Renew, Select,
    SetQueue, Settle, Settlement, StopWorkers, TagRule, Verdict, Watch, Workers,
};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::job::{Due, JobOptions, Keep, NewJob, OnConflict, Payload, Progress, Retention, UniqueScope};
use crate::limits::{self, Limits, cut};
use crate::name::{self, QueueName};
use crate::policy::{Backoff, ClassRule, Rate, RetryPolicy};
use crate::time::{Deadline, Timestamp};

/// Refuses what breaks a rule or a limit, before the store is touched (clauses B1, B2).
#[derive(Debug)]
pub struct Check {
    inner: Arc<dyn Backend>,
    limits: Limits,
}

impl Check {
    /// Checks the calls to `inner` against `limits`.
    pub fn new(inner: Arc<dyn Backend>, limits: Limits) -> Self {
        Self { inner, limits }
    }

    async fn around<R: Checked, T, F>(
        &self,
        operation: Operation,
        deadline: Deadline,
        mut request: R,
        call: impl FnOnce(R, Deadline) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        request.check(&self.limits).map_err(|e| e.during(operation.name()))?;
        call(request, deadline).await
    }
}

crate::around!(Check);

impl Enqueue {
    /// Checks the jobs against `limits`, for whoever reaches a store past [`Check`], such as an enqueue in
    /// the caller's own transaction.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), [`TooLarge`](crate::ErrorKind::TooLarge).
    pub fn check(&mut self, limits: &Limits) -> Result<()> {
        Checked::check(self, limits)
    }
}

impl Settle {
    /// Checks the settlements against `limits`, and cuts what is too long, for whoever reaches a store past [`Check`].
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), [`TooLarge`](crate::ErrorKind::TooLarge).
    pub fn check(&mut self, limits: &Limits) -> Result<()> {
        Checked::check(self, limits)
    }
}

/// A request that knows its rules. Text that is only for people is cut rather than refused.
trait Checked {
    fn check(&mut self, limits: &Limits) -> Result<()>;
}

/// Requests that are valid by their types.
macro_rules! always_valid {
    ($($request:ty),*) => {$(
        impl Checked for $request {
            fn check(&mut self, _: &Limits) -> Result<()> {
                Ok(())
            }
        }
    )*};
}

always_valid!((), DeleteRegister);

fn at_most(what: &str, size: usize, limit: usize, unit: &str) -> Result<()> {
    if size > limit { Err(Error::too_large(what, size, limit, unit)) } else { Ok(()) }
}

fn batch(size: usize, limits: &Limits) -> Result<()> {
    at_most("the batch", size, limits.batch, "items")
}

/// What would be changed twice by one call, with which answer, nobody could say.
fn once<T: Copy + Eq + Hash>(mut items: impl Iterator<Item = (JobId, T)>) -> Result<()> {
    let mut known = HashSet::new();
    match items.find(|item| !known.insert(*item)) {
        Some((job, _)) => {
            Err(Error::invalid(format!("the job {job} is named twice in one call; name it once")))
        }
        None => Ok(()),
    }
}

fn page(size: usize, limits: &Limits) -> Result<()> {
    if size == 0 {
        return Err(Error::invalid("a limit of 0 items asks for nothing; ask for at least 1"));
    }
    at_most("the page", size, limits.page, "items")
}

fn payload(what: &str, payload: &Payload, limits: &Limits) -> Result<()> {
    at_most(what, payload.len(), limits.payload_bytes, "bytes")
}

pub(crate) fn span(what: &str, span: Duration, allowed: RangeInclusive<Duration>) -> Result<()> {
    if allowed.contains(&span) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    Err(Error::invalid(format!("{what} of {span:?} is out of range; it may be from {least:?} to {most:?}")))
}

pub(crate) fn rate(rate: Rate) -> Result<()> {
    if rate.limit == 0 {
        return Err(Error::invalid(
            "a rate of 0 would never let anything pass; pause the queue, or give at least 1",
        ));
    }
    span("a rate's span", rate.per, limits::RATE_SPAN)
}

fn delay(what: &str, delay: Duration) -> Result<()> {
    span(what, delay, Duration::ZERO..=limits::SPAN)
}

fn moment(what: &str, at: Timestamp) -> Result<()> {
    if (Timestamp::from_millis(0)..=Timestamp::MAX).contains(&at) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} at {at:?} is out of range; it may be from 1970 to the end of the year 9999"
    )))
}

pub(crate) fn due(due: Due) -> Result<()> {
    match due {
        Due::Now => Ok(()),
        Due::In(wait) => delay("a delay", wait),
        Due::At(at) => moment("a due time", at),
    }
}

fn priority(priority: i16) -> Result<()> {
    if limits::PRIORITY.contains(&priority) {
        return Ok(());
    }
    let (least, most) = (limits::PRIORITY.start(), limits::PRIORITY.end());
    Err(Error::invalid(format!("a priority of {priority} is out of range; it may be from {least} to {most}")))
}

fn backoff(backoff: &Backoff) -> Result<()> {
    match backoff {
        Backoff::Fixed { delay: wait } => delay("a retry's delay", *wait),
        Backoff::Steps { delays } => {
            at_most("a retry policy", delays.len(), 100, "delays")?;
            delays.iter().try_for_each(|wait| delay("a retry's delay", *wait))
        }
        Backoff::Exponential { first, cap, factor, jitter } => {
            delay("a retry's first delay", *first)?;
            delay("a retry's longest delay", *cap)?;
            if !factor.is_finite() || !(0.0..=1.0).contains(jitter) {
                return Err(Error::invalid("a retry's factor must be finite, and its jitter from 0 to 1"));
            }
            Ok(())
        }
    }
}

impl Checked for Enqueue {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        batch(self.jobs.len(), limits)?;
        let bytes = self.jobs.iter().map(|job| job.payload.len()).sum();
        at_most("the batch", bytes, limits.batch_bytes, "bytes of payload")?;
        self.jobs.iter().try_for_each(|job| new_job(job, limits))
    }
}

pub(crate) fn new_job(job: &NewJob, limits: &Limits) -> Result<()> {
    payload("the payload", &job.payload, limits)?;
    due(job.due)?;
    if job.due == Due::PARKED && matches!(job.on_conflict(), OnConflict::Debounce { .. }) {
        return Err(Error::invalid(
            "a debounced job is due in the end whatever comes, so it cannot be parked; let it replace instead",
        ));
    }
    options(&job.options, limits)
}

fn options(options: &JobOptions, limits: &Limits) -> Result<()> {
    priority(options.priority)?;
    if options.max_attempts == 0 || options.max_attempts > limits::ATTEMPTS {
        let most = limits::ATTEMPTS;
        return Err(Error::invalid(format!("{} attempts; it may be from 1 to {most}", options.max_attempts)));
    }
    at_most("the job", options.tags.len(), limits.tags, "tags")?;
    at_most("the job", options.headers.len(), limits.headers, "headers")?;
    options.headers.keys().try_for_each(|name| name::check("a header's name", name, limits::KEY_BYTES))?;
    let bytes = options.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    at_most("the job", bytes, limits.headers_bytes, "bytes of headers")?;
    if let Some(lease) = options.lease {
        span("a lease", lease, limits::LEASE)?;
    }
    if let Some(timeout) = options.timeout {
        span("a time-out", timeout, limits::TIMEOUT)?;
    }
    if options.limit.as_ref().is_some_and(|limit| limit.max == 0) {
        return Err(Error::invalid("a limit of 0 running jobs would never run; give it at least 1"));
    }
    if let OnConflict::Debounce { at_most } =
        options.unique.as_ref().map_or(OnConflict::Keep, |unique| unique.on_conflict)
    {
        span("how long a job may be put off", at_most, Duration::ZERO..=limits::SPAN)?;
    }
    if let Some(UniqueScope::For(period)) = options.unique.as_ref().map(|unique| unique.scope) {
        span("a unique key's period", period, Duration::from_millis(1)..=limits::SPAN)?;
    }
    if let Some(policy) = &options.retry {
        retry_policy(policy, limits)?;
    }
    retention(options.retention)
}

pub(crate) fn retention(kept: Retention) -> Result<()> {
    for keep in [kept.succeeded, kept.failed, kept.cancelled] {
        if let Keep::For(time) = keep {
            delay("a retention", time)?;
        }
    }
    Ok(())
}

pub(crate) fn retry_policy(policy: &RetryPolicy, limits: &Limits) -> Result<()> {
    at_most("a retry policy", policy.classes.len(), 100, "classes")?;
    let bytes = policy.classes.keys().map(String::len).sum();
    at_most("a retry policy", bytes, limits.headers_bytes, "bytes of class names")?;
    backoff(&policy.backoff)?;
    policy.classes.values().try_for_each(|rule| match rule {
        ClassRule::Backoff(own) => backoff(own),
        ClassRule::Fail => Ok(()),
    })
}

fn progress(Progress { message, cursor, .. }: &Progress, limits: &Limits) -> Result<()> {
    at_most("the progress message", message.len(), limits.progress_bytes, "bytes")?;
    at_most("the cursor", cursor.as_ref().map_or(0, String::len), limits.cursor_bytes, "bytes")
}

impl Checked for Claim {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        batch(self.limit, limits)?;
        at_most("the claim", self.queues.len(), limits.page, "queues")?;
        if let KindRule::Only(kinds) | KindRule::Except(kinds) = &self.kinds {
            at_most("the claim", kinds.len(), limits.page, "kinds")?;
        }
        if let TagRule::JobHasAll(tags) | TagRule::WorkerHasAll(tags) = &self.tags {
            at_most("the claim", tags.len(), limits.page, "tags")?;
        }
        span("a lease", self.lease, limits::LEASE)
    }
}

impl Checked for Renew {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        batch(self.renewals.len(), limits)?;
        once(self.renewals.iter().map(|renewal| (renewal.job, renewal.token)))?;
        for renewal in &self.renewals {
            span("a lease", renewal.lease, limits::LEASE)?;
            renewal.progress.as_ref().map_or(Ok(()), |told| progress(told, limits))?;
        }
        Ok(())
    }
}

fn settlements(settlements: &mut [Settlement], limits: &Limits) -> Result<()> {
    batch(settlements.len(), limits)?;
    for settlement in settlements {
        match &settlement.verdict {
            Verdict::Succeed { result: Some(result) } => payload("the result", result, limits),
            Verdict::Retry { delay: wait, .. } | Verdict::Release { delay: wait, .. } => {
                delay("a delay", *wait)
            }
            Verdict::Succeed { result: None } | Verdict::Fail { .. } | Verdict::Cancel { .. } => Ok(()),
        }?;
        if let Some(failure) = &mut settlement.failure {
            cut(&mut failure.message, limits.failure_bytes);
            cut(&mut failure.class, limits::KEY_BYTES);
        }
    }
    Ok(())
}

impl Checked for Settle {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        settlements(&mut self.settlements, limits)
    }
}

impl Checked for Recover {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        let odd = |s: &Settlement| !matches!(s.verdict, Verdict::Retry { .. } | Verdict::Fail { .. });
        if self.settlements.iter().any(odd) {
            return Err(Error::invalid("a recovered job is tried again or fails; it cannot end otherwise"));
        }
        settlements(&mut self.settlements, limits)
    }
}

impl Checked for Expired {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        page(self.limit, limits)
    }
}

impl Checked for AppendLogs {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        batch(self.appends.len(), limits)?;
        batch(self.appends.iter().map(|append| append.lines.len()).sum(), limits)?;
        for line in self.appends.iter_mut().flat_map(|append| &mut append.lines) {
            cut(&mut line.message, limits.log_line_bytes);
        }
        Ok(())
    }
}

impl Checked for ReadLogs {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        page(self.limit, limits)
    }
}

impl Checked for Find {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        batch(self.ids.len(), limits)
    }
}

impl Checked for List {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        page(self.limit, limits)?;
        cursor(self.after.as_ref())?;
        filter(&self.filter, limits)
    }
}

fn cursor(cursor: Option<&Cursor>) -> Result<()> {
    at_most("the cursor", cursor.map_or(0, |cursor| cursor.0.len()), limits::CURSOR_BYTES, "bytes")
}

fn filter(filter: &Filter, limits: &Limits) -> Result<()> {
    fn items<T>(what: &str, items: Option<&Vec<T>>, limits: &Limits) -> Result<()> {
        at_most("the filter", items.map_or(0, Vec::len), limits.page, what)
    }
    items("queues", filter.queues.as_ref(), limits)?;
    items("states", filter.states.as_ref(), limits)?;
    items("reasons", filter.reasons.as_ref(), limits)?;
    items("kinds", filter.kinds.as_ref(), limits)?;
    items("tags", filter.tags.as_ref(), limits)?;
    let bytes = |text: Option<&String>| text.map_or(0, String::len);
    at_most("the filter's class", bytes(filter.error_class.as_ref()), limits::KEY_BYTES, "bytes")?;
    let text = bytes(filter.payload_contains.as_ref());
    at_most("the filter's text", text, limits.payload_bytes, "bytes")
}

fn queues(queues: Option<&Vec<QueueName>>, limits: &Limits) -> Result<()> {
    at_most("the request", queues.map_or(0, Vec::len), limits.page, "queues")
}

impl Checked for Counts {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        queues(self.queues.as_ref(), limits)
    }
}

impl Checked for Watch {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        queues(self.queues.as_ref(), limits)
    }
}

impl Checked for SetQueue {
    fn check(&mut self, _: &Limits) -> Result<()> {
        if let Some(Pause { by, reason }) = &mut self.settings.pause {
            cut(by, limits::NOTE_BYTES);
            cut(reason, limits::NOTE_BYTES);
        }
        self.settings.rate.map_or(Ok(()), rate)
    }
}

impl Checked for StopWorkers {
    fn check(&mut self, _: &Limits) -> Result<()> {
        match self {
            Self::Host(host) => at_most("the host's name", host.len(), limits::KEY_BYTES, "bytes"),
            Self::One(_) | Self::All => Ok(()),
        }
    }
}

impl Checked for Amend {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        match &self.select {
            Select::Ids(ids) => {
                batch(ids.len(), limits)?;
                once(ids.iter().map(|id| (*id, ())))?;
            }
            Select::Matching { filter: wanted, after, limit, .. } => {
                page(*limit, limits)?;
                cursor(after.as_ref())?;
                filter(wanted, limits)?;
            }
        }
        match &self.action {
            Action::Requeue { due: at } | Action::Postpone { due: at } => due(*at),
            Action::Unpark { due: Due::PARKED } => Err(Error::invalid(
                "to unpark a job it needs a due time; to park one, postpone or requeue it to `Due::PARKED`",
            )),
            Action::Unpark { due: at } => due(*at),
            Action::Reprioritise { priority: new } => priority(*new),
            Action::DeleteEnded { by } => moment("the end of a job", *by),
            Action::Cancel
            | Action::CancelParked
            | Action::Delete
            | Action::Move { .. }
            | Action::Withdraw
            | Action::Restore => Ok(()),
        }
    }
}

impl Checked for Prune {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        delay("a worker's retention", self.workers_after)?;
        page(self.limit, limits)
    }
}

impl Checked for CheckIn {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        delay("a worker's check-in", self.lost_after)?;
        at_most("the host's name", self.info.host.len(), limits::KEY_BYTES, "bytes")?;
        let names = self.info.queues.len() + self.info.kinds.len() + self.info.tags.len();
        at_most("the worker", names, 3 * limits.page, "queues, kinds and tags")?;
        let log = &mut self.info.log;
        log.iter_mut().for_each(|line| limits::cut(&mut line.message, limits::WORKER_LINE_BYTES));
        at_most("a worker's log", log.len(), limits::WORKER_LINES, "lines")
    }
}

impl Checked for Workers {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        page(self.limit, limits)
    }
}

impl Checked for PutRegister {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        self.next.map_or(Ok(()), |at| moment("a next tick", at))?;
        self.expires.map_or(Ok(()), |at| moment("an expiry", at))?;
        payload("the register", &self.body, limits)
    }
}

impl Checked for Registers {
    fn check(&mut self, limits: &Limits) -> Result<()> {
        page(self.limit, limits)
    }
}
