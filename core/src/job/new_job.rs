use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::options::{JobOptions, Keep, Limit, OnConflict, Retention, Unique, UniqueScope};
use super::payload::Payload;
use crate::error::Result;
use crate::id::JobId;
use crate::name::{Kind, LimitKey, QueueName, Tag, UniqueKey};
use crate::policy::RetryPolicy;
use crate::time::Timestamp;

/// Arguments of a job that know their kind.
///
/// ```
/// use leasehold_core::{JobArgs, NewJob};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct SendMail { to: String }
///
/// impl JobArgs for SendMail {
///     const KIND: &'static str = "send_mail";
/// }
///
/// let job = NewJob::of(&SendMail { to: "ann@example.org".into() })?.priority(5);
/// assert_eq!(job.kind.as_str(), "send_mail");
/// # Ok::<(), leasehold_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which kind of job it is",
    note = "implement it: `impl JobArgs for {Self} {{ const KIND: &'static str = \"...\"; }}`"
)]
pub trait JobArgs: Serialize + DeserializeOwned + Send + 'static {
    /// The kind that the handler is registered under; see [`Kind`] for what is allowed.
    const KIND: &'static str;
}

/// When a job becomes due, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// This long after the store took it in.
    In(Duration),
    /// At this moment; one that has passed counts as it stands, so it also orders (clause C6).
    At(Timestamp),
}

impl Due {
    /// Never, until somebody gives it another due time: what is due then is parked (clause P7).
    pub const PARKED: Self = Self::At(Timestamp::MAX);

    /// The moment, given the store's present one.
    pub fn by(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::In(delay) => now.plus(delay),
            Self::At(at) => at,
        }
    }
}

/// A job as its producer describes it.
///
/// Its id is made with it: enqueuing the same `NewJob` again leaves one job (clause P2).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewJob {
    /// Its id for ever.
    pub id: JobId,
    /// Where it waits. Defaults to `default`; a [`Queue`](crate::Queue) that enqueues it puts its own name in place.
    pub queue: QueueName,
    /// Which handler runs it.
    pub kind: Kind,
    /// Its arguments.
    pub payload: Payload,
    /// When it may run. Defaults to now.
    pub due: Due,
    /// Everything else.
    pub options: JobOptions,
    /// What of it was said though it is as by default.
    said: u8,
}

/// Bits of what was said.
const PRIORITY: u8 = 1;
const MAX_ATTEMPTS: u8 = 2;
const CRASH_BUDGET: u8 = 4;
const RETENTION: u8 = 8;

impl NewJob {
    /// A job of `kind` with these bytes as its payload.
    pub fn new(kind: Kind, payload: Payload) -> Self {
        Self {
            id: JobId::generate(),
            queue: QueueName::default(),
            kind,
            payload,
            due: Due::Now,
            options: JobOptions::default(),
            said: 0,
        }
    }

    /// A job of the kind and with the payload of `args`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if [`JobArgs::KIND`] is no valid name or `args`
    /// cannot be written as JSON.
    pub fn of<A: JobArgs>(args: &A) -> Result<Self> {
        Ok(Self::new(Kind::new(A::KIND)?, Payload::json(args)?))
    }

    /// A job of the kind named `kind` with `args` as JSON, for kinds that are known only at run time.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `kind` is no valid name or `args` cannot be
    /// written as JSON.
    pub fn dynamic<A: Serialize + ?Sized>(kind: &str, args: &A) -> Result<Self> {
        Ok(Self::new(Kind::new(kind)?, Payload::json(args)?))
    }

    /// What it does to a job that holds its unique key.
    pub fn on_conflict(&self) -> OnConflict {
        self.options.unique.as_ref().map_or(OnConflict::Keep, |unique| unique.on_conflict)
    }

    /// Sets the id, for producers that derive it from their own data. Defaults to a fresh UUIDv7.
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.id = id;
        self
    }

    /// Sets the queue, for whoever calls the contract itself: a [`Queue`](crate::Queue) handle puts every job
    /// into its own. Defaults to `default`.
    #[must_use]
    pub fn queue(mut self, queue: QueueName) -> Self {
        self.queue = queue;
        self
    }

    /// Makes it due this long after the store takes it in. Defaults to at once.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Due::In(delay);
        self
    }

    /// Makes it due at this moment. Defaults to at once.
    #[must_use]
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.due = Due::At(at);
        self
    }

    /// Parks it: it is not due before somebody [unparks](crate::Store::unpark) it, whatever the hour (clause P7). Defaults to
    /// at once.
    ///
    /// One that is debounced cannot be parked, since that promises a latest time.
    #[must_use]
    pub fn parked(mut self) -> Self {
        self.due = Due::PARKED;
        self
    }

    /// Sets the priority; higher runs first. Defaults to 0.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.options.priority = priority;
        self.said |= PRIORITY;
        self
    }

    /// Sets how often it may be attempted. Defaults to 20.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = attempts;
        self.said |= MAX_ATTEMPTS;
        self
    }

    /// Sets how many crashes it may cause. Defaults to 3.
    #[must_use]
    pub fn crash_budget(mut self, crashes: u32) -> Self {
        self.options.crash_budget = crashes;
        self.said |= CRASH_BUDGET;
        self
    }

    /// Adds a tag. Defaults to none.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.options.tags.insert(tag);
        self
    }

    /// Lets in no second job with this key while this one holds it. Defaults to no key.
    #[must_use]
    pub fn unique(self, key: UniqueKey, scope: UniqueScope) -> Self {
        self.unique_as(Unique::new(key, scope))
    }

    /// Like [`unique`](Self::unique), but a job that holds the key and waits gets this one's payload, priority and due
    /// time: see [`OnConflict::Replace`].
    #[must_use]
    pub fn replace(self, key: UniqueKey, scope: UniqueScope) -> Self {
        self.unique_as(Unique::new(key, scope).on_conflict(OnConflict::Replace))
    }

    /// Runs once, with the newest payload, when no job with this key was enqueued for `delay`, and at the latest
    /// `at_most` after the first one of them was. One that is enqueued once it runs begins anew.
    #[must_use]
    pub fn debounce(self, key: UniqueKey, delay: Duration, at_most: Duration) -> Self {
        let unique = Unique::new(key, UniqueScope::UntilClaimed);
        self.delay(delay.min(at_most)).unique_as(unique.on_conflict(OnConflict::Debounce { at_most }))
    }

    /// Runs at most one job with this key at once, while at most one other, with the newest payload, waits for its
    /// first attempt. The key is its unique key, held until it is claimed, and its limit key at once.
    ///
    /// One that is tried again waits for that besides, with the payload that it had.
    ///
    /// # Errors
    /// None for any valid key: both kinds of key have the same rules.
    pub fn latest(self, key: UniqueKey) -> Result<Self> {
        let limit = LimitKey::new(key.as_str())?;
        Ok(self.replace(key, UniqueScope::UntilClaimed).limit(limit, 1))
    }

    /// Sets the unique key with its scope, and what becomes of this job where it is held. Defaults to no key.
    #[must_use]
    pub fn unique_as(mut self, unique: Unique) -> Self {
        self.options.unique = Some(unique);
        self
    }

    /// Runs at most `max` jobs with this key at once. Defaults to no limit.
    #[must_use]
    pub fn limit(mut self, key: LimitKey, max: u32) -> Self {
        self.options.limit = Some(Limit::new(key, max));
        self
    }

    /// The same, but where so many run when the job would be given out, it ends as cancelled instead of waiting.
    #[must_use]
    pub fn limit_or_end(mut self, key: LimitKey, max: u32) -> Self {
        self.options.limit = Some(Limit::new(key, max).or_end());
        self
    }

    /// Sets the lease of each attempt. Defaults to the worker's.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = Some(lease);
        self
    }

    /// Sets how long one attempt may run. Defaults to the handler's.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets when failed attempts are tried again. Defaults to the worker's policy.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = Some(policy);
        self
    }

    /// Sets how long the ended job is kept. Defaults to [`Retention::default`].
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.options.retention = retention;
        self.said |= RETENTION;
        self
    }

    /// Keeps the ended job this long, however it ended. Defaults to [`Retention::default`].
    #[must_use]
    pub fn keep(self, keep: Keep) -> Self {
        self.retention(Retention { succeeded: keep, failed: keep, cancelled: keep })
    }

    /// Adds a header that the handler can read, such as W3C `traceparent`. Defaults to none.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.headers.insert(name.into(), value.into());
        self
    }
}

impl NewJob {
    /// A job of no kind that matters, to set options of.
    pub(crate) fn template() -> Self {
        Self::new(Kind::template(), Payload::EMPTY)
    }

    /// Gives it what it does not say itself, by these defaults: tags and headers add up, of two headers with one name its
    /// own counts.
    pub(crate) fn or(mut self, defaults: &Self) -> Self {
        fn unless<T: Clone>(own: &mut Option<T>, default: Option<&T>) {
            *own = own.take().or_else(|| default.cloned());
        }
        let (usual, given) = (JobOptions::default(), &defaults.options);
        let (said, own) = (self.said, &mut self.options);
        let unsaid = |bit, as_usual: bool| as_usual && said & bit == 0;
        if self.due == Due::Now {
            self.due = defaults.due;
        }
        if unsaid(PRIORITY, own.priority == usual.priority) {
            own.priority = given.priority;
        }
        if unsaid(MAX_ATTEMPTS, own.max_attempts == usual.max_attempts) {
            own.max_attempts = given.max_attempts;
        }
        if unsaid(CRASH_BUDGET, own.crash_budget == usual.crash_budget) {
            own.crash_budget = given.crash_budget;
        }
        if unsaid(RETENTION, own.retention == usual.retention) {
            own.retention = given.retention;
        }
        unless(&mut own.unique, given.unique.as_ref());
        unless(&mut own.limit, given.limit.as_ref());
        unless(&mut own.lease, given.lease.as_ref());
        unless(&mut own.timeout, given.timeout.as_ref());
        unless(&mut own.retry, given.retry.as_ref());
        own.tags.extend(given.tags.iter().cloned());
        for (name, value) in &given.headers {
            own.headers.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }
}

/// What can be enqueued: a [`NewJob`], or arguments that know their kind.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be enqueued",
    note = "enqueue a `NewJob`, or implement `JobArgs` for `{Self}`"
)]
pub trait IntoJob {
    /// The job.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the arguments make no valid job.
    fn into_job(self) -> Result<NewJob>;
}

impl IntoJob for NewJob {
    fn into_job(self) -> Result<NewJob> {
        Ok(self)
    }
}

impl<A: JobArgs> IntoJob for A {
    fn into_job(self) -> Result<NewJob> {
        NewJob::of(&self)
    }
}
