use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::attempt::Attempt;
use super::choice::QueueChoice;
use super::extract::States;
use super::flows::Heard;
use super::handler::{Handler, HandlerService};
use super::held::Held;
use super::log::LogSender;
use super::options::{HandlerOptions, RawOptions};
use super::own_log::OwnLog;
use super::raw::{Bundled, PushedBack};
use super::run::Worker;
use super::settle::WAITING;
use super::shared::{Config, Load, OnFailure, Route, Routes, Shared, Stats};
use crate::backend::{KindRule, TagRule, WorkerInfo};
use crate::client::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkerId;
use crate::job::{Bundle, JobRecord};
use crate::layer::check::{retry_policy, span};
use crate::limits::{self, Limits};
use crate::name::{Kind, QueueName, WorkerName};
use crate::policy::{BoxError, JobFailure, Outcome, RetryPolicy};

type Wrap = Box<dyn FnMut(Route) -> Route + Send>;

/// Builds a [`Worker`]. What is wrong with it is told by [`build`](Self::build).
#[must_use]
pub struct WorkerBuilder {
    store: Store,
    name: Result<Option<WorkerName>>,
    queues: Vec<Result<QueueName>>,
    routes: Vec<(Result<Kind>, Route, HandlerOptions)>,
    /// Those for records that carry many payloads.
    bundles: Vec<Bundled>,
    other: Option<(Route, HandlerOptions)>,
    kinds: Result<KindRule>,
    layers: Vec<Wrap>,
    states: States,
    on_failure: Vec<OnFailure>,
    config: Config,
}

impl WorkerBuilder {
    pub(super) fn new(store: Store) -> Self {
        let config = Config {
            concurrency: 16,
            prefetch: 1_000,
            tags: TagRule::Any,
            min_priority: None,
            lease: Duration::from_secs(30),
            timeout: Duration::from_hours(1),
            poll: Duration::from_secs(1),
            grace: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            recovery: Duration::from_secs(5),
            retry: RetryPolicy::default(),
            choice: QueueChoice::default(),
            until_idle: false,
            #[cfg(feature = "schedules")]
            fires_schedules: false,
            redo_failed: false,
            fail_fast: false,
            max_jobs: None,
            max_time: None,
            max_memory: None,
        };
        Self {
            store,
            name: Ok(None),
            queues: Vec::new(),
            routes: Vec::new(),
            bundles: Vec::new(),
            other: None,
            kinds: Ok(KindRule::Any),
            layers: Vec::new(),
            states: States::default(),
            on_failure: Vec::new(),
            config,
        }
    }

    /// Sets what people call it. Defaults to the host's name and the process's id.
    pub fn name(mut self, name: &str) -> Self {
        self.name = WorkerName::new(name).map(Some);
        self
    }

    /// Takes jobs from this queue too. Defaults to the queue `default`.
    pub fn queue<N>(mut self, queue: N) -> Self
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
    {
        self.queues.push(queue.try_into().map_err(Error::from));
        self
    }

    /// Runs jobs of `kind` by `handler`. Only jobs whose kind has a handler are ever claimed.
    pub fn handle<H: Handler<A>, A: 'static>(self, kind: &str, handler: H) -> Self {
        self.handle_with(kind, HandlerOptions::default(), handler)
    }

    /// Runs jobs of `kind` by `handler`, with options of its own.
    pub fn handle_with<H: Handler<A>, A: 'static>(
        mut self,
        kind: &str,
        options: HandlerOptions,
        handler: H,
    ) -> Self {
        let options = options.of(&handler);
        self.routes.push((Kind::new(kind), route(handler), options));
        self
    }

    /// Runs the payloads of [raw queues](crate::client::Raw) of `kind` by `handler`, and jobs of that kind as well. Each is
    /// run as a job of its own would be, with the payload as its arguments; but those that a record carries with others
    /// have neither result, progress nor cursor.
    pub fn handle_raw<H: Handler<A>, A: 'static>(self, kind: &str, options: RawOptions, handler: H) -> Self {
        let mut this = self.handle_with(kind, options.handler.clone(), PushedBack(handler));
        if let Ok(kind) = Kind::new(kind) {
            this.bundles.push(Bundled { kind, options });
        }
        this
    }

    /// Runs jobs of every kind that has no handler of its own by `handler`, with options of its own. Then jobs of any
    /// kind are claimed, unless [`only_kinds`](Self::only_kinds) or [`except_kinds`](Self::except_kinds) says which.
    pub fn handle_other<H: Handler<A>, A: 'static>(mut self, options: HandlerOptions, handler: H) -> Self {
        let options = options.of(&handler);
        self.other = Some((route(handler), options));
        self
    }

    /// Takes only jobs of these kinds, of those that it has handlers for.
    pub fn only_kinds<'a>(mut self, kinds: impl IntoIterator<Item = &'a str>) -> Self {
        self.kinds = kinds.into_iter().map(Kind::new).collect::<Result<_>>().map(KindRule::Only);
        self
    }

    /// Takes no jobs of these kinds, though it has handlers for them.
    pub fn except_kinds<'a>(mut self, kinds: impl IntoIterator<Item = &'a str>) -> Self {
        self.kinds = kinds.into_iter().map(Kind::new).collect::<Result<_>>().map(KindRule::Except);
        self
    }

    /// Calls `told` with each attempt that failed, in panics and time-outs too, before its end is recorded.
    pub fn on_failure(mut self, told: impl Fn(&JobRecord, &JobFailure) + Send + Sync + 'static) -> Self {
        self.on_failure.push(Box::new(told));
        self
    }

    /// Puts a `tower` layer around every handler; the last one added is the outermost.
    pub fn layer<L, S>(mut self, layer: L) -> Self
    where
        L: Layer<Route, Service = S> + Send + 'static,
        S: Service<Attempt, Response = Outcome> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + 'static,
    {
        self.layers
            .push(Box::new(move |route| BoxCloneSyncService::new(layer.layer(route).map_err(Into::into))));
        self
    }

    /// Shares `state` with all handlers, which take it as [`State<T>`](super::State).
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.add(state);
        self
    }

    /// Sets how many jobs run at once. Defaults to 16.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.config.concurrency = jobs;
        self
    }

    /// Sets how many jobs may be held beyond those that run. As many are held as would begin within 100 ms
    /// by the run times seen, and one that still waits after 1 s is given back. Defaults to 1,000; 0 for none.
    pub fn prefetch(mut self, jobs: usize) -> Self {
        self.config.prefetch = jobs;
        self
    }

    /// Takes only jobs whose tags fit. Defaults to any.
    pub fn tags(mut self, rule: TagRule) -> Self {
        self.config.tags = rule;
        self
    }

    /// Takes only jobs of at least this priority. Defaults to any.
    pub fn min_priority(mut self, priority: i16) -> Self {
        self.config.min_priority = Some(priority);
        self
    }

    /// Sets the lease of jobs that have none of their own. It is renewed from a third on, so a longer one
    /// costs fewer renewals, and a crash is noticed later. Defaults to 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.config.lease = lease;
        self
    }

    /// Sets how long an attempt may run where neither job nor handler says. Defaults to 1 h.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// Sets how often to look for jobs where no event tells of them. Defaults to 1 s, give or take a fifth.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.config.poll = poll;
        self
    }

    /// Sets how long running jobs may go on once the worker is to stop; then they are given back with their
    /// attempt. Their handlers are told [a while](Self::cancel_grace) before. Defaults to 30 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// Sets how long a handler may go on once it was told to end, because somebody cancelled its job or the
    /// worker's grace is nearly over; then it is dropped. Defaults to 5 s.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.config.cancel_grace = grace;
        self
    }

    /// Sets how often leases that ran out are looked for (clause C3). Defaults to 5 s, give or take a fifth.
    pub fn recovery(mut self, interval: Duration) -> Self {
        self.config.recovery = interval;
        self
    }

    /// Sets when failed attempts are tried again where neither job nor handler says. Defaults to
    /// [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.config.retry = policy;
        self
    }

    /// Sets from which of its queues it takes first. Defaults to [`QueueChoice::Merged`].
    pub fn queue_choice(mut self, choice: QueueChoice) -> Self {
        self.config.choice = choice;
        self
    }

    /// Fires schedules that are due, besides. Any number of workers may; see
    /// [`Schedules::fire`](crate::client::Schedules::fire). Defaults to not.
    #[cfg(feature = "schedules")]
    pub fn schedules(mut self) -> Self {
        self.config.fires_schedules = true;
        self
    }

    /// Stops by itself once nothing is due and nothing runs. Defaults to going on for ever.
    pub fn until_idle(mut self) -> Self {
        self.config.until_idle = true;
        self
    }

    /// Stops by itself once it has run so many jobs. Defaults to going on for ever.
    pub fn max_jobs(mut self, jobs: usize) -> Self {
        self.config.max_jobs = Some(jobs);
        self
    }

    /// Takes no more jobs once it has worked that long; those that it holds are run. Defaults to going on for ever.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.config.max_time = Some(time);
        self
    }

    /// Takes no more jobs once its process has so many bytes of memory resident, seen once a second; those that it
    /// holds are run. Whatever started the process then starts a fresh one. Defaults to no limit.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.config.max_memory = Some(bytes);
        self
    }

    /// Stops as soon as one attempt fails, tried again or not: what waits is given back, and what runs has its
    /// [grace](Self::grace). Defaults to going on.
    pub fn fail_fast(mut self) -> Self {
        self.config.fail_fast = true;
        self
    }

    /// Sends those jobs of its queues and kinds round again that have failed by when it starts. With
    /// [`until_idle`](Self::until_idle) it ends when they are through.
    pub fn redo_failed(mut self) -> Self {
        self.config.redo_failed = true;
        self
    }

    /// The worker.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad name, two handlers of one kind, none at all, or a
    /// number or span out of range.
    pub fn build(self) -> Result<Worker> {
        let config = self.config;
        check(&config, self.store.limits())?;
        for options in
            self.routes.iter().map(|(_, _, options)| options).chain(self.other.iter().map(|other| &other.1))
        {
            check_options(options, self.store.limits())?;
        }
        let mut queues = self.queues.into_iter().collect::<Result<Vec<_>>>()?;
        if queues.is_empty() {
            queues.push(QueueName::default());
        }
        let mut routes = routes(self.routes, self.other, self.layers)?;
        let kinds = kinds(&routes, &self.bundles, self.kinds?)?;
        for bundled in self.bundles {
            // Layers stand around each payload.
            let options = HandlerOptions::default().timeout(*limits::TIMEOUT.end());
            routes.by_kind.insert(Bundle::kind(&bundled.kind)?, (route(bundled), options));
        }
        let (host, pid) = (host(), std::process::id());
        let name = self.name?.map_or_else(|| WorkerName::new(format!("{host}:{pid}")), Ok)?;
        let mut info = WorkerInfo::new(name, host, pid);
        info.queues.clone_from(&queues);
        if let KindRule::Only(kinds) = &kinds {
            info.kinds = kinds.iter().cloned().collect();
        }
        info.concurrency = config.concurrency;
        if let TagRule::JobHasAll(tags) | TagRule::WorkerHasAll(tags) = &config.tags {
            info.tags = tags.iter().cloned().collect();
        }
        let (settle, ended) = mpsc::channel(WAITING);
        let stopping = CancellationToken::new();
        let shared = Shared {
            store: self.store,
            id: WorkerId::generate(),
            info,
            config,
            queues,
            kinds,
            routes,
            states: self.states,
            held: Held::default(),
            heard: Heard::default(),
            load: Load::default(),
            stats: Stats::default(),
            settle,
            log: LogSender::default(),
            own_log: OwnLog::default(),
            on_failure: self.on_failure,
            ended_by: OnceLock::new(),
            enough: stopping.child_token(),
            stopping,
            interrupt: CancellationToken::new(),
        };
        Ok(Worker::new(Arc::new(shared), ended))
    }
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("queues", &self.queues)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn route<H: Handler<A>, A: 'static>(handler: H) -> Route {
    let never = |never: std::convert::Infallible| match never {};
    BoxCloneSyncService::new(HandlerService::new(handler).map_err(never))
}

fn routes(
    given: Vec<(Result<Kind>, Route, HandlerOptions)>,
    other: Option<(Route, HandlerOptions)>,
    mut layers: Vec<Wrap>,
) -> Result<Routes> {
    let mut layered = |route| layers.iter_mut().fold(route, |route, wrap| wrap(route));
    let mut by_kind = HashMap::default();
    for (kind, route, options) in given {
        let kind = kind?;
        if by_kind.insert(kind.clone(), (layered(route), options)).is_some() {
            return Err(Error::invalid(format!("two handlers for the kind {kind:?}; give each kind one")));
        }
    }
    let other = other.map(|(route, options)| (layered(route), options));
    if by_kind.is_empty() && other.is_none() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a worker without handlers would run nothing; call `.handle`",
        ));
    }
    Ok(Routes { by_kind, other })
}

/// The kinds that there are handlers for, of those that are wanted.
fn kinds(routes: &Routes, bundles: &[Bundled], wanted: KindRule) -> Result<KindRule> {
    let carried = bundles.iter().map(|bundled| Ok((&bundled.kind, Bundle::kind(&bundled.kind)?)));
    let carried: Vec<(&Kind, Kind)> = carried.collect::<Result<_>>()?;
    if routes.other.is_some() {
        return Ok(match wanted {
            KindRule::Any => KindRule::Any,
            KindRule::Only(kinds) => KindRule::Only(with_bundles(kinds, &carried)),
            KindRule::Except(kinds) => KindRule::Except(with_bundles(kinds, &carried)),
        });
    }
    let kinds = routes.by_kind.keys().filter(|kind| wanted.takes(kind)).cloned().collect();
    let kinds = with_bundles(kinds, &carried);
    if kinds.is_empty() {
        return Err(Error::invalid("no kind is left that this worker may take and has a handler for"));
    }
    Ok(KindRule::Only(kinds))
}

/// These kinds, and those of the records that carry payloads of them.
fn with_bundles(mut kinds: BTreeSet<Kind>, carried: &[(&Kind, Kind)]) -> BTreeSet<Kind> {
    let also = carried.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, bundle)| bundle.clone());
    let also: Vec<Kind> = also.collect();
    kinds.extend(also);
    kinds
}

fn check(config: &Config, limits: &Limits) -> Result<()> {
    if !limits::CONCURRENCY.contains(&config.concurrency) {
        return Err(Error::invalid(format!(
            "a concurrency of {} is out of range; it may be from {} to {}",
            config.concurrency,
            limits::CONCURRENCY.start(),
            limits::CONCURRENCY.end()
        )));
    }
    span("a lease", config.lease, limits::LEASE)?;
    span("a time-out", config.timeout, limits::TIMEOUT)?;
    span("an interval between polls", config.poll, limits::INTERVAL)?;
    span("an interval between recoveries", config.recovery, limits::INTERVAL)?;
    retry_policy(&config.retry, limits)
}

fn check_options(options: &HandlerOptions, limits: &Limits) -> Result<()> {
    options.timeout.map_or(Ok(()), |timeout| span("a time-out", timeout, limits::TIMEOUT))?;
    options.retry.as_ref().map_or(Ok(()), |policy| retry_policy(policy, limits))
}

/// The host's name, as the system tells it.
fn host() -> String {
    let told = |path| std::fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    let name = told("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into())
}
