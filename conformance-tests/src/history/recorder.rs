use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use leasehold_core::backend::{
    Admit, Admitted, Amend, Amended, Answer, AppendLogs, CheckIn, CheckedIn, Claim, Claimed, Counts,
    DeleteRegister, Description, Enqueue, Enqueued, Event, Expired, ExpiredLease, Find, List, LogPage, Page,
    Prune, Pruned, PutRegister, QueueCounts, QueueRecord, ReadLogs, Recover, RegisterPage, Registers, Renew,
    Renewed, SetQueue, Settle, Space, StopWorkers, Watch, WorkerRecord, Workers,
};
use leasehold_core::{Backend, Deadline, Error, ErrorKind, JobRecord, Result, Timestamp};

use super::event::{Call, Presence, Reply, Setting, What};
use super::hint::{Hint, Watching};
use super::journal::Journal;
use super::keeping::{
    append, asked, change, entry, extended, fate, granted, plan, put, read, reading, renewal, seen, writes,
};
use super::sink::Sink;

/// A backend that writes down each call before it is made and what came of it. A history is of one store: what moves jobs to
/// another one and takes them in is written down by its name alone, and whoever does so judges it by itself.
#[derive(Debug)]
pub struct Recorder {
    inner: Arc<dyn Backend>,
    journal: Journal,
}

impl Recorder {
    /// Records what this process does with `inner`.
    pub fn wrap(inner: Arc<dyn Backend>, process: &str, sink: Arc<dyn Sink>) -> Self {
        Self { inner, journal: Journal::new(process, sink) }
    }

    /// The journal that it writes, for what is no call.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    async fn record<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T>>,
        told: impl FnOnce(&T) -> Reply,
    ) -> Result<T> {
        self.record_numbered(call, work, told).await.map(|(_, answer)| answer)
    }

    /// Records a call, and answers its number too.
    async fn record_numbered<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T>>,
        told: impl FnOnce(&T) -> Reply,
    ) -> Result<(u64, T)> {
        let mut open = Open { journal: &self.journal, op: self.journal.next_call(), closed: false };
        self.journal.write(open.op, What::Invoke { call })?;
        // A caller can be cut off before the store has heard of the call, and before it hears of the answer: here
        // are the places for it, also where the store itself never waits.
        tokio::task::yield_now().await;
        let result = work.await;
        tokio::task::yield_now().await;
        open.close(match &result {
            Ok(answer) => What::Ok { reply: told(answer) },
            Err(error) if had_no_effect(error.kind()) => What::Fail { why: format!("{error:?}") },
            Err(error) => What::Info { why: format!("{error:?}") },
        })?;
        result.map(|answer| (open.op, answer))
    }

    /// Records a call that changes no job.
    async fn pass<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.record(Call::Other(name.into()), work, |_| Reply::Other).await
    }
}

/// Whether an error of this kind says that the call certainly had no effect. Whatever may have left this
/// process is unknown.
fn had_no_effect(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidInput
            | ErrorKind::TooLarge
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Unsupported
            | ErrorKind::Unavailable
            | ErrorKind::Full
            | ErrorKind::Incompatible
            | ErrorKind::Config
            | ErrorKind::Denied
    )
}

/// A call that began. If it is dropped, nothing is known of it.
struct Open<'a> {
    journal: &'a Journal,
    op: u64,
    closed: bool,
}

impl Open<'_> {
    fn close(&mut self, what: What) -> Result<()> {
        self.closed = true;
        // An answer that is not in the history is as good as none.
        self.journal
            .write(self.op, what)
            .map_err(|e| Error::new(ErrorKind::Unknown, "not recorded").caused_by(e))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.closed {
            // A call without an end counts as unknown too, so nothing is lost if this cannot be written.
            let _ = self.journal.write(self.op, What::Info { why: "the call was dropped".into() });
        }
    }
}

/// What one watcher was told. The same again proves nothing new, so each thing is written down once.
struct Told {
    journal: Journal,
    op: u64,
    before: HashSet<Hint>,
}

impl Told {
    /// How much is written down for one watcher; then it is said that no more is.
    const MOST: usize = 10_000;

    fn write(&mut self, event: &Event) {
        let Some(hint) = Hint::of(event) else { return };
        if self.before.len() > Self::MOST || !self.before.insert(hint.clone()) {
            return;
        }
        let hint = if self.before.len() > Self::MOST { Hint::Unrecorded } else { hint };
        // A stream has nobody to tell that a line could not be written; the next call has.
        let _ = self.journal.write(self.op, What::Told(hint));
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Recorder {
    async fn describe(&self, deadline: Deadline) -> Result<Description> {
        self.pass("describe", self.inner.describe(deadline)).await
    }

    async fn setup(&self, deadline: Deadline) -> Result<()> {
        self.pass("setup", self.inner.setup(deadline)).await
    }

    async fn now(&self, deadline: Deadline) -> Result<Timestamp> {
        self.pass("now", self.inner.now(deadline)).await
    }

    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>> {
        let call = Call::Enqueue(request.jobs.iter().map(put).collect());
        let told = |answers: &Vec<Enqueued>| {
            Reply::Enqueue(answers.iter().map(|answer| (answer.job, entry(&answer.answer))).collect())
        };
        self.record(call, self.inner.enqueue(deadline, request), told).await
    }

    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>> {
        self.pass("admit", self.inner.admit(deadline, request)).await
    }

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        let call = Call::Claim(asked(&request));
        let told = |claimed: &Claimed| Reply::Claim(claimed.jobs.iter().map(granted).collect());
        self.record(call, self.inner.claim(deadline, request), told).await
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        let call = Call::Renew(request.renewals.iter().map(renewal).collect());
        let told = |answers: &Vec<Renewed>| Reply::Renew(answers.iter().map(extended).collect());
        self.record(call, self.inner.renew(deadline, request), told).await
    }

    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>> {
        let call = Call::Settle(writes(&request.settlements));
        let told = |answers: &Vec<Answer>| Reply::Settle(answers.clone());
        self.record(call, self.inner.settle(deadline, request), told).await
    }

    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>> {
        self.pass("expired", self.inner.expired(deadline, request)).await
    }

    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>> {
        let call = Call::Recover(writes(&request.settlements));
        let told = |answers: &Vec<Answer>| Reply::Recover(answers.clone());
        self.record(call, self.inner.recover(deadline, request), told).await
    }

    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>> {
        let call = Call::Log(request.appends.iter().map(append).collect());
        let told = |answers: &Vec<Answer>| Reply::Log(answers.clone());
        self.record(call, self.inner.append_logs(deadline, request), told).await
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        let call = reading(&request).map_or_else(|| Call::Other("read_logs".into()), Call::ReadLog);
        self.record(call, self.inner.read_logs(deadline, request), read).await
    }

    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>> {
        let told = |jobs: &Vec<Option<JobRecord>>| Reply::Look(jobs.iter().flatten().map(seen).collect());
        self.record(Call::Look, self.inner.find(deadline, request), told).await
    }

    async fn list(&self, deadline: Deadline, request: List) -> Result<Page> {
        let told = |page: &Page| Reply::Look(page.jobs.iter().map(seen).collect());
        self.record(Call::Look, self.inner.list(deadline, request), told).await
    }

    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>> {
        let told = |counts: &Vec<QueueCounts>| Reply::Count(counts.clone());
        self.record(Call::Count, self.inner.counts(deadline, request), told).await
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        let Some(change) = change(&request) else {
            return self.pass("amend", self.inner.amend(deadline, request)).await;
        };
        let told = |amended: &Amended| {
            Reply::Amend(amended.jobs.iter().map(|(job, answer)| (*job, fate(*answer))).collect())
        };
        self.record(Call::Amend(change), self.inner.amend(deadline, request), told).await
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        let call = Setting { queue: request.queue.clone(), paused: request.settings.pause.is_some() };
        let told = |_: &()| Reply::Other;
        self.record(Call::SetQueue(call), self.inner.set_queue(deadline, request), told).await
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.pass("queues", self.inner.queues(deadline)).await
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        let told = |pruned: &Pruned| Reply::Prune(pruned.jobs);
        self.record(Call::Prune, self.inner.prune(deadline, request), told).await
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        let call = Call::CheckIn(Presence { worker: request.worker, leaving: request.leaving });
        let told = |answer: &CheckedIn| Reply::CheckIn { stop: answer.stop };
        self.record(call, self.inner.check_in(deadline, request), told).await
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.pass("workers", self.inner.workers(deadline, request)).await
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.pass("stop_workers", self.inner.stop_workers(deadline, request)).await
    }

    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()> {
        if request.space != Space::Schedule {
            return self.pass("put_register", self.inner.put_register(deadline, request)).await;
        }
        let call = Call::PutRegister(plan(&request));
        self.record(call, self.inner.put_register(deadline, request), |_| Reply::Other).await
    }

    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage> {
        self.pass("registers", self.inner.registers(deadline, request)).await
    }

    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool> {
        if request.space != Space::Schedule {
            return self.pass("delete_register", self.inner.delete_register(deadline, request)).await;
        }
        let call = Call::DeleteRegister(request.name.clone());
        self.record(call, self.inner.delete_register(deadline, request), |_| Reply::Other).await
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        let call = Call::Watch(Watching::from(&request));
        let opening = self.inner.watch(deadline, request);
        let (op, events) = self.record_numbered(call, opening, |_| Reply::Other).await?;
        let mut told = Told { journal: self.journal.clone(), op, before: HashSet::new() };
        Ok(events.inspect(move |event| told.write(event)).boxed())
    }
}
