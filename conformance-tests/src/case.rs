use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use leasehold_core::{Backend, Deadline};
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::breach::{Breach, Kept};
use crate::clause::{Clause, Need};
use crate::harness::{Harness, Place};
use crate::options::{SEED, options};

/// How long a case may take before it counts as hung.
pub const CASE_BOUND: Duration = Duration::from_mins(2);

/// One behaviour that the contract asks for.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it does, completing "a backend ...".
    pub name: &'static str,
    /// The promise in one sentence.
    pub sentence: &'static str,
    /// The clauses that it proves.
    pub clauses: &'static [Clause],
    /// What a store must be able to do for it.
    pub needs: &'static [Need],
    /// Whether it judges what is done before the store is asked, by the client's side of a call, and so nothing of the
    /// store: it proves no clause of that.
    pub clients_side: bool,
    pub(crate) module: &'static str,
    /// How long it may take.
    pub(crate) bound: fn() -> Duration,
    pub(crate) run: fn(Bench) -> BoxFuture<'static, Kept>,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The backend keeps the promise.
    Kept,
    /// The backend says that it cannot do this; here is why.
    NotSupported(String),
    /// This machine lacks something; here is what.
    CannotRun(String),
    /// The backend breaks the promise; here is how.
    Broken(String),
}

impl Case {
    /// The part of the contract that it belongs to.
    pub fn area(&self) -> &'static str {
        self.module.rsplit("::").next().unwrap_or(self.module)
    }

    /// Its name in a list of tests: `area::name[clauses]`.
    pub fn full_name(&self) -> String {
        format!("{}::{}[{}]", self.area(), self.name, self.clauses_with(","))
    }

    fn clauses_with(&self, between: &str) -> String {
        let clauses: Vec<String> = self.clauses.iter().map(Clause::to_string).collect();
        clauses.join(between)
    }

    /// Judges the backend of `harness`, on a thread and a runtime of its own, within [`CASE_BOUND`].
    ///
    /// A report of a broken promise begins with the clauses: `breaks C2, E2: ...`.
    pub fn judge(&self, harness: Arc<dyn Harness>) -> Report {
        self.judge_on("", harness)
    }

    /// Judges it as one of several harnesses, that of this name.
    pub(crate) fn judge_on(&self, server: &str, harness: Arc<dyn Harness>) -> Report {
        match self.judge_within((self.bound)(), server, harness) {
            Report::Broken(how) => {
                Report::Broken(format!("breaks {}: {}\n  {how}", self.clauses_with(", "), self.sentence))
            }
            report => report,
        }
    }

    fn judge_within(&self, bound: Duration, server: &str, harness: Arc<dyn Harness>) -> Report {
        if let Some(what) = self.needs.iter().find_map(|need| need.missing_here()) {
            return Report::CannotRun(what);
        }
        let (answer, answered) = mpsc::channel();
        let (case, place) = (*self, Place::of(self.name, server));
        let work = move || answer.send(case.judge_here(harness, place));
        let thread = match thread::Builder::new().name(self.name.into()).spawn(work) {
            Ok(thread) => thread,
            Err(error) => return Report::CannotRun(format!("no thread for the case: {error}")),
        };
        match answered.recv_timeout(bound) {
            Ok(report) => report,
            // The thread is left behind: whatever holds it up cannot be stopped from outside.
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Report::Broken(format!("the case hangs: it has not ended within {bound:?}"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Report::Broken(panic_of(thread)),
        }
    }

    fn judge_here(&self, harness: Arc<dyn Harness>, place: Place) -> Report {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return Report::CannotRun(format!("no runtime for the case: {error}")),
        };
        let seed = seed();
        fastrand::seed(seed);
        let report = match runtime.block_on(self.judge_at(harness, place, seed)) {
            Report::Broken(how) => {
                let name = self.name;
                Report::Broken(format!("{how}\n  (the same dice: {SEED}={seed} cargo test {name})"))
            }
            report => report,
        };
        // A blocking call that never comes back must not keep the case from being reported.
        runtime.shutdown_background();
        report
    }

    async fn judge_at(&self, harness: Arc<dyn Harness>, place: Place, seed: u64) -> Report {
        let backend = match harness.open(&place).await {
            Ok(backend) => backend,
            Err(why) => return Breach::from(why).report(),
        };
        match self.lacking(&*harness, &*backend).await {
            Ok(None) => {}
            Ok(Some(reason)) => return Report::NotSupported(reason),
            Err(error) => return Report::Broken(format!("it cannot be described: {error:?}")),
        }
        match (self.run)(Bench::new(harness, place, backend, seed)).await {
            Ok(()) => Report::Kept,
            Err(breach) => breach.report(),
        }
    }

    /// Why this backend cannot run the case, if it cannot.
    pub(crate) async fn lacking(
        &self,
        harness: &dyn Harness,
        backend: &dyn Backend,
    ) -> leasehold_core::Result<Option<String>> {
        if self.needs.is_empty() {
            return Ok(None);
        }
        let capabilities = backend.describe(Deadline::default()).await?.capabilities;
        let lacking = self.needs.iter().find_map(|need| need.lacking(harness, &capabilities));
        Ok(lacking.map(|why| format!("not supported: {why}")))
    }
}

fn seed() -> u64 {
    options().seed.unwrap_or_else(|| fastrand::u64(..))
}

fn panic_of<T>(thread: thread::JoinHandle<T>) -> String {
    let Err(panic) = thread.join() else { return "the case ended without a word".into() };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with no text");
    format!("the case panicked: {text}")
}

/// The table of an area's cases: the promise, its clauses, the function that proves it, what it needs.
///
/// The functions are private to their module, so one that is missing in the table is dead code, which this
/// crate forbids: it does not compile. One that judges the client's side alone says so.
macro_rules! cases {
    ($($(#[doc = $line:literal])+ [$($clause:ident),+] $name:ident $(of the $client:ident)? $(needs [$($need:ident),+])? $(within $bound:path)?;)+) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            name: stringify!($name),
            sentence: concat!($($line),+).trim_ascii(),
            clauses: &[$($crate::clause::Clause::$clause),+],
            needs: &[$($($crate::clause::Need::$need),+)?],
            clients_side: $crate::case::clients_side!($($client)?),
            module: module_path!(),
            bound: $crate::case::bound!($($bound)?),
            run: |bench| Box::pin($name(bench)),
        }),+];
    };
}

/// How long a case may take: as long as most, or as long as it says.
macro_rules! bound {
    () => {
        || $crate::case::CASE_BOUND
    };
    ($bound:path) => {
        $bound
    };
}

/// Whether a case judges the client's side alone.
macro_rules! clients_side {
    () => {
        false
    };
    (client) => {
        true
    };
}

pub(crate) use {bound, cases, clients_side};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::CannotRun;
    use async_trait::async_trait;

    struct InMemory;

    #[async_trait]
    impl Harness for InMemory {
        async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
            Ok(Arc::new(leasehold_memory::Memory::on_clock(place.clock.clone().unwrap_or_default())))
        }
    }

    struct Elsewhere(fn() -> CannotRun);

    #[async_trait]
    impl Harness for Elsewhere {
        async fn open(&self, _: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
            Err((self.0)())
        }
    }

    fn case(run: fn(Bench) -> BoxFuture<'static, Kept>) -> Case {
        Case {
            name: "case",
            sentence: "It does.",
            clauses: &[Clause::C2, Clause::E2],
            needs: &[],
            clients_side: false,
            module: "a::b",
            bound: || CASE_BOUND,
            run,
        }
    }

    #[test]
    fn a_case_that_hangs_is_ended() {
        let waits = case(|_| Box::pin(std::future::pending()));
        let blocks = case(|_| {
            Box::pin(async {
                let (_sender, never) = mpsc::channel::<()>();
                let _ = never.recv_timeout(Duration::from_secs(30));
                Ok(())
            })
        });
        for case in [waits, blocks] {
            let report = case.judge_within(Duration::from_millis(50), "", Arc::new(InMemory));
            assert!(matches!(&report, Report::Broken(how) if how.contains("hangs")), "{report:?}");
        }
    }

    #[test]
    fn a_case_that_panics_is_broken() {
        let report = case(|_| Box::pin(async { panic!("oh {}", 1) })).judge(Arc::new(InMemory));
        assert_eq!(report, Report::Broken("breaks C2, E2: It does.\n  the case panicked: oh 1".into()));
    }

    #[test]
    fn a_breach_names_the_line_of_the_case() {
        let report =
            case(|t| Box::pin(async move { Ok(t.take().await.map(drop)?) })).judge(Arc::new(InMemory));
        assert!(matches!(&report, Report::Broken(how) if how.contains("src/case.rs:")), "{report:?}");
    }

    #[test]
    fn what_is_missing_here_is_no_fault_of_the_backend() {
        let report =
            case(|_| Box::pin(async { Ok(()) })).judge(Arc::new(Elsewhere(|| CannotRun::missing("server"))));
        assert_eq!(report, Report::CannotRun("server".into()));
        let broken = || leasehold_core::Error::invalid("bad").into();
        let report = case(|_| Box::pin(async { Ok(()) })).judge(Arc::new(Elsewhere(broken)));
        assert!(matches!(report, Report::Broken(_)));
    }

    #[test]
    fn what_a_store_cannot_do_is_said_with_the_reason() {
        let needy =
            Case { needs: &[Need::AtomicBatch, Need::SharedEvents], ..case(|_| Box::pin(async { Ok(()) })) };
        let report = needy.judge(Arc::new(InMemory));
        let why = "not supported: it sees no events of other clients";
        assert_eq!(report, Report::NotSupported(why.into()));
    }
}
