use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::backend::*;
use leasehold_core::{Clock, Deadline, Error, ErrorKind, JobRecord, Result, SystemClock, Timestamp};
use tokio::sync::Mutex;

use crate::error::unavailable;
use crate::journal::{self, Journal};
use crate::schema::Tables;
use crate::{admit, claim, control, enqueue, inspect, logs, recover, registers, renew, settle, workers};

/// The backend's name in errors and descriptions.
const BACKEND: &str = "files";

/// Jobs in a folder on a local disk, which any number of processes of one host may share. Clones share what they have
/// read.
#[derive(Clone)]
pub struct Files {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    /// What is known of the journal; nothing before the first operation, and after one that went wrong.
    known: Arc<Mutex<Option<Journal>>>,
}

impl Files {
    /// The jobs in this folder, by the host's clock. Nothing is touched before the first call, which is
    /// [`setup`](Backend::setup) where the folder may be new.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), clock: Arc::new(SystemClock), known: Arc::default() }
    }

    /// Sets where the hour is read. Defaults to the host's clock.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Runs one operation on the tables, alone in all processes, and writes down what it changed.
    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        deadline: Deadline,
        operation: impl FnOnce(&mut Tables, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (folder, clock) = (self.folder.clone(), Arc::clone(&self.clock));
        let work = move |known: &mut Option<Journal>| {
            // Taken out, so that an operation that ends in an error or a panic leaves nothing half done behind: the
            // next one reads the journal from its beginning.
            let mut journal = Journal::open(&folder, known.take())?;
            let answer = operation(&mut journal.tables, clock.now());
            if answer.is_ok() {
                journal.commit(&folder)?;
            }
            if journal.tables.changes.is_empty() {
                *known = Some(journal);
            }
            answer
        };
        self.alone(deadline, work).await.map_err(|error| error.during(name).on(BACKEND))
    }

    /// Does blocking work under the lock of this handle, and then under that of all processes.
    async fn alone<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce(&mut Option<Journal>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let late = |_| Error::new(ErrorKind::Unavailable, "others held the lock until the deadline");
        let begin = async {
            let known = Arc::clone(&self.known).lock_owned().await;
            Ok::<_, Error>((known, journal::lock(&self.folder).await?))
        };
        let begun = tokio::time::timeout_at(deadline.instant(), begin);
        let (mut known, lock) = begun.await.map_err(late)??;
        // It has both locks with it, so it goes on to its end also where nobody waits for it any more.
        let work = tokio::task::spawn_blocking(move || {
            if deadline.has_passed() {
                return Err(Error::new(ErrorKind::Unavailable, "the deadline passed before the call began"));
            }
            let answer = work(&mut known);
            drop(lock);
            answer
        });
        match tokio::time::timeout_at(deadline.instant(), work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(Error::new(ErrorKind::Internal, "the operation panicked").caused_by(panic)),
            Err(_) => Err(Error::new(ErrorKind::Unknown, "the disk did not answer until the deadline")),
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Implements the contract: each method that is listed runs the function beside it.
macro_rules! operations {
    ({ $($own:item)* } $($method:ident($($request:ty)?) -> $answer:ty = $function:path;)*) => {
        #[async_trait]
        impl Backend for Files {
            $($own)*
            $(async fn $method(&self, deadline: Deadline $(, request: $request)?) -> Result<$answer> {
                self.run(stringify!($method), deadline, move |tables, now| {
                    $function(tables, now $(, operations!(@of request $request))?)
                }).await
            })*
        }
    };
    (@of $request:ident $type:ty) => { $request };
}

operations! {
    {
        async fn describe(&self, deadline: Deadline) -> Result<Description> {
            let mut capabilities = Capabilities::none(Durability::D2);
            (capabilities.atomic_batch, capabilities.strict_limits) = (true, true);
            capabilities.exact_counts = true;
            let location = self.folder.display().to_string();
            let version = env!("CARGO_PKG_VERSION").into();
            let description = Description { backend: BACKEND.into(), version, location, capabilities };
            self.run("describe", deadline, |_, _| Ok(description)).await
        }

        async fn setup(&self, deadline: Deadline) -> Result<()> {
            let folder = self.folder.clone();
            std::fs::create_dir_all(&folder).map_err(unavailable)?;
            self.alone(deadline, move |known| {
                *known = Some(Journal::open_or_make(&folder)?);
                Ok(())
            }).await
        }

        async fn watch(&self, _: Deadline, _: Watch) -> Result<BoxStream<'static, Event>> {
            let why = "files tell nobody that they changed; workers poll";
            Err(Error::new(ErrorKind::Unsupported, why).during("watch").on(BACKEND))
        }
    }
    now() -> Timestamp = now;
    enqueue(Enqueue) -> Vec<Enqueued> = enqueue::enqueue;
    admit(Admit) -> Vec<Admitted> = admit::admit;
    claim(Claim) -> Claimed = claim::claim;
    renew(Renew) -> Vec<Renewed> = renew::renew;
    settle(Settle) -> Vec<Answer> = settle::settle;
    expired(Expired) -> Vec<ExpiredLease> = recover::expired;
    recover(Recover) -> Vec<Answer> = recover::recover;
    append_logs(AppendLogs) -> Vec<Answer> = logs::append;
    read_logs(ReadLogs) -> LogPage = logs::read;
    find(Find) -> Vec<Option<JobRecord>> = inspect::find;
    list(List) -> Page = inspect::list;
    counts(Counts) -> Vec<QueueCounts> = inspect::counts;
    amend(Amend) -> Amended = control::amend;
    set_queue(SetQueue) -> () = control::set_queue;
    queues() -> Vec<QueueRecord> = control::queues;
    prune(Prune) -> Pruned = control::prune;
    check_in(CheckIn) -> CheckedIn = workers::check_in;
    workers(Workers) -> Vec<WorkerRecord> = workers::workers;
    stop_workers(StopWorkers) -> u64 = workers::stop;
    put_register(PutRegister) -> () = registers::put;
    registers(Registers) -> RegisterPage = registers::registers;
    delete_register(DeleteRegister) -> bool = registers::delete;
}

fn now(_: &mut Tables, now: Timestamp) -> Result<Timestamp> {
    Ok(now)
}
