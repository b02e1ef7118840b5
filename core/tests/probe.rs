//! A store in memory whose every call a test can hold up, lose or break.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use leasehold_core::backend::*;
use leasehold_core::layer::Operation;
use leasehold_core::{Deadline, Error, ErrorKind, JobRecord, Limits, Result, Store, Timestamp};
use leasehold_memory::Memory;

/// What happens to a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Pass,
    /// It arrives this much later.
    Late(Duration),
    /// It arrives; the answer comes this much later.
    Slow(Duration),
    /// It never arrives, and there is no answer.
    Hang,
    /// It never arrives; this is the answer.
    Refuse(ErrorKind),
    /// It arrives; the answer is lost.
    Lose,
    /// It arrives, and there is no answer.
    Mute,
    /// The store panics.
    Panic,
}

type Rule = Box<dyn FnMut(Operation) -> Fate + Send>;

#[derive(Clone)]
pub(crate) struct Probe {
    inner: Memory,
    rule: Arc<Mutex<Rule>>,
}

impl Probe {
    pub(crate) fn new(rule: impl FnMut(Operation) -> Fate + Send + 'static) -> Self {
        Self { inner: Memory::new(), rule: Arc::new(Mutex::new(Box::new(rule))) }
    }

    /// Lets everything pass.
    pub(crate) fn quiet() -> Self {
        Self::new(|_| Fate::Pass)
    }

    pub(crate) fn set(&self, rule: impl FnMut(Operation) -> Fate + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// A handle through the standard layers.
    pub(crate) fn store(&self) -> Store {
        Store::with_limits(Arc::new(self.clone()), Limits::default())
    }

    /// A handle that nothing happens to.
    pub(crate) fn undisturbed(&self) -> Store {
        Store::new(self.inner.clone())
    }

    async fn meet<T>(&self, operation: Operation, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = (self.rule.lock().unwrap())(operation);
        match fate {
            Fate::Pass => call.await,
            Fate::Late(by) => {
                tokio::time::sleep(by).await;
                call.await
            }
            Fate::Slow(by) => {
                let answer = call.await;
                tokio::time::sleep(by).await;
                answer
            }
            Fate::Hang => std::future::pending().await,
            Fate::Refuse(kind) => Err(Error::new(kind, "refused by the test")),
            Fate::Lose => {
                let _ = call.await;
                Err(Error::new(ErrorKind::Unknown, "the answer was lost"))
            }
            Fate::Mute => {
                let _ = call.await;
                std::future::pending().await
            }
            Fate::Panic => panic!("the store has a defect"),
        }
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe")
    }
}

macro_rules! probed {
    ($($variant:ident $method:ident($($request:ty)?) -> $answer:ty;)*) => {
        #[async_trait::async_trait]
        impl Backend for Probe {
            $(async fn $method(&self, deadline: Deadline $(, request: $request)?) -> Result<$answer> {
                let call = self.inner.$method(deadline $(, { let request: $request = request; request })?);
                self.meet(Operation::$variant, call).await
            })*
        }
    };
}

probed! {
    Describe describe() -> Description;
    Setup setup() -> ();
    Now now() -> Timestamp;
    Enqueue enqueue(Enqueue) -> Vec<Enqueued>;
    Admit admit(Admit) -> Vec<Admitted>;
    Claim claim(Claim) -> Claimed;
    Renew renew(Renew) -> Vec<Renewed>;
    Settle settle(Settle) -> Vec<Answer>;
    Expired expired(Expired) -> Vec<ExpiredLease>;
    Recover recover(Recover) -> Vec<Answer>;
    AppendLogs append_logs(AppendLogs) -> Vec<Answer>;
    ReadLogs read_logs(ReadLogs) -> LogPage;
    Find find(Find) -> Vec<Option<JobRecord>>;
    List list(List) -> Page;
    Counts counts(Counts) -> Vec<QueueCounts>;
    Amend amend(Amend) -> Amended;
    SetQueue set_queue(SetQueue) -> ();
    Queues queues() -> Vec<QueueRecord>;
    Prune prune(Prune) -> Pruned;
    CheckIn check_in(CheckIn) -> CheckedIn;
    Workers workers(Workers) -> Vec<WorkerRecord>;
    StopWorkers stop_workers(StopWorkers) -> u64;
    PutRegister put_register(PutRegister) -> ();
    Registers registers(Registers) -> RegisterPage;
    DeleteRegister delete_register(DeleteRegister) -> bool;
    Watch watch(Watch) -> BoxStream<'static, Event>;
}
