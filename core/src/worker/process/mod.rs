//! A program for each job, in a process group of its own: `run` is the course of one attempt, `command` how the
//! program is started, `group` what ends it with all that it starts, `output` what it says, `exit` what its end means.

mod command;
mod exit;
mod group;
mod output;
mod run;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

pub use self::exit::ExitMeaning;
use self::exit::Meanings;
use super::attempt::Attempt;
use super::handler::Handler;
use crate::policy::Outcome;

/// How long a program may take to end once it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// A handler that runs a program for each job, in any language.
///
/// The program reads the payload from its standard input, knows its job by its environment, writes its result to the
/// file descriptor `LEASEHOLD_RESULT_FD`, and ends by an [exit code](ExitMeaning). What it prints is in the job's log
/// while it runs. It and all that it starts are ended with the attempt, also if the worker is killed.
/// The guide's page on processes has the whole agreement.
///
/// ```
/// use leasehold_core::Store;
/// use leasehold_core::worker::{Process, Worker};
///
/// # fn example(store: &Store) -> leasehold_core::Result<Worker> {
/// let shrink = Process::new("convert").args(["-", "-resize", "50%", "fd:3"]).memory(512 << 20);
/// Worker::builder(store).handle("shrink", shrink).build()
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Process(Arc<Settings>);

#[derive(Clone)]
struct Settings {
    program: OsString,
    arguments: Vec<OsString>,
    folder: Option<PathBuf>,
    inherit: bool,
    keep: Vec<OsString>,
    set: BTreeMap<OsString, OsString>,
    grace: Duration,
    memory: Option<u64>,
    cpu: Option<Duration>,
    meanings: Meanings,
}

impl Process {
    /// Runs this program: a path, or a name that is looked up in its `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self(Arc::new(Settings {
            program: program.into(),
            arguments: Vec::new(),
            folder: None,
            inherit: false,
            keep: Vec::new(),
            set: BTreeMap::new(),
            grace: GRACE,
            memory: None,
            cpu: None,
            meanings: Meanings::default(),
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds an argument.
    pub fn arg(self, argument: impl Into<OsString>) -> Self {
        self.with(|settings| settings.arguments.push(argument.into()))
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.with(|settings| settings.arguments.extend(arguments.into_iter().map(Into::into)))
    }

    /// Sets the folder that it runs in. Defaults to the worker's.
    pub fn current_dir(self, folder: impl Into<PathBuf>) -> Self {
        self.with(|settings| settings.folder = Some(folder.into()))
    }

    /// Sets a variable of its environment.
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.with(|settings| drop(settings.set.insert(name.into(), value.into())))
    }

    /// Hands on a variable of the worker's environment, if it is set. `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`,
    /// `TMPDIR`, `TZ`, `LANG` and all of `LC_*` are handed on in any case; nothing else is, for a worker's environment
    /// tends to hold passwords.
    pub fn keep_env(self, name: impl Into<OsString>) -> Self {
        self.with(|settings| settings.keep.push(name.into()))
    }

    /// Hands on all of the worker's environment.
    pub fn inherit_env(self) -> Self {
        self.with(|settings| settings.inherit = true)
    }

    /// Sets how long it may take to end once it was sent `SIGTERM`, because its time is over, somebody cancelled its job
    /// or the worker stops; then it is killed. Defaults to 10 s.
    pub fn grace(self, grace: Duration) -> Self {
        self.with(|settings| settings.grace = grace)
    }

    /// Bounds the address space of each of its processes (`RLIMIT_AS`), rounded up to KiB. Defaults to no bound.
    pub fn memory(self, bytes: u64) -> Self {
        self.with(|settings| settings.memory = Some(bytes))
    }

    /// Bounds the CPU time of each of its processes (`RLIMIT_CPU`), rounded up to seconds. Defaults to no bound.
    pub fn cpu_time(self, time: Duration) -> Self {
        self.with(|settings| settings.cpu = Some(time))
    }

    /// Says what an exit code means, in place of [what it usually does](ExitMeaning).
    pub fn exit_code(self, code: u8, meaning: ExitMeaning) -> Self {
        self.with(|settings| settings.meanings.set(code, meaning))
    }
}

impl Handler<Process> for Process {
    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let settings = self.0.clone();
        async move { settings.run(&attempt).await }.boxed()
    }

    fn grace(&self) -> Option<Duration> {
        Some(self.0.grace + run::LAST_WORDS)
    }
}

impl fmt::Debug for Process {
    /// Shows the program alone: arguments and environment may hold what must not stand in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.0.program).finish()
    }
}
