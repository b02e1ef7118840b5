use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Answer, AppendLogs, CheckIn, CheckedIn, Claim, Claimed, Counts,
    DeleteSchedule, Description, Enqueue, EnqueueAnswer, Enqueued, Event, Expired, ExpiredLease, Find, List,
    LogPage, Page, Prune, Pruned, PutSchedule, QueueCounts, QueueRecord, ReadLogs, Recover, Renew, Renewed,
    Schedule, Schedules, Select, SetQueue, Settle, Settlement, StopWorkers, Verdict, Watch, WorkerRecord,
    Workers,
};
use leasehold_core::{
    Backend, Deadline, Due, Error, ErrorKind, JobRecord, LeasedJob, NewJob, Payload, Result, Timestamp,
};

use super::event::{Asked, Call, Change, ChangeKind, DueAs, Entry, Granted, Put, Reply, Seen, What, Write};
use super::journal::Journal;
use super::sink::Sink;

/// A backend that writes down each call before it is made and what came of it.
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
        result
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

/// What a history keeps of a job.
pub(crate) fn seen(job: &JobRecord) -> Seen {
    Seen {
        job: job.id,
        state: job.state,
        attempt: job.attempt,
        generation: job.generation,
        queue: job.queue.clone(),
        kind: job.kind.clone(),
        priority: job.options.priority,
        due: job.due,
        payload: hash(&job.payload),
    }
}

/// FNV-1a: the same in every process and version, which the standard library's hashes are not.
fn hash(payload: &Payload) -> u64 {
    payload
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn put(job: &NewJob) -> Put {
    Put {
        job: job.id,
        queue: job.queue.clone(),
        kind: job.kind.clone(),
        priority: job.options.priority,
        due: match job.due {
            Due::Now => DueAs::In(0),
            Due::In(delay) => DueAs::In(millis(delay)),
            Due::At(at) => DueAs::At(at),
        },
        max_attempts: job.options.max_attempts,
        payload: hash(&job.payload),
    }
}

fn entry(answer: &EnqueueAnswer) -> Entry {
    match answer {
        EnqueueAnswer::Created => Entry::Created,
        EnqueueAnswer::Existing => Entry::Existing,
        EnqueueAnswer::Held => Entry::Held,
        EnqueueAnswer::Refused(_) => Entry::Refused,
    }
}

fn granted(leased: &LeasedJob) -> Granted {
    Granted {
        token: leased.token,
        lease: millis(leased.lease),
        started: leased.job.started_at,
        job: seen(&leased.job),
    }
}

fn writes(settlements: &[Settlement]) -> Vec<Write> {
    let write = |settlement: &Settlement| Write {
        job: settlement.job,
        token: settlement.token,
        verdict: settlement.verdict.name().into(),
        span: match settlement.verdict {
            Verdict::Retry { delay, .. } | Verdict::Release { delay, .. } => millis(delay),
            Verdict::Succeed { .. } | Verdict::Fail { .. } | Verdict::Cancel { .. } => 0,
        },
    };
    settlements.iter().map(write).collect()
}

fn change(request: &Amend) -> Change {
    let action = match request.action {
        _ if request.preview => ChangeKind::Preview,
        Action::Cancel => ChangeKind::Cancel,
        Action::Requeue { .. } => ChangeKind::Requeue,
        Action::Delete => ChangeKind::Delete,
        Action::Move { .. } => ChangeKind::Move,
        Action::Reprioritise { .. } => ChangeKind::Reprioritise,
        Action::Postpone { .. } => ChangeKind::Postpone,
    };
    let jobs = match &request.select {
        Select::Ids(ids) => Some(ids.clone()),
        Select::Matching { .. } => None,
    };
    Change { action, jobs }
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

    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed> {
        let asked = Asked { claim: request.id, worker: request.worker, limit: request.limit };
        let told = |claimed: &Claimed| Reply::Claim(claimed.jobs.iter().map(granted).collect());
        self.record(Call::Claim(asked), self.inner.claim(deadline, request), told).await
    }

    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>> {
        let write = |renewal: &leasehold_core::backend::Renewal| Write {
            job: renewal.job,
            token: renewal.token,
            verdict: String::new(),
            span: millis(renewal.lease),
        };
        let call = Call::Renew(request.renewals.iter().map(write).collect());
        let held = |answer: &Renewed| match answer {
            Renewed::Held { .. } => Answer::Applied,
            Renewed::Lost => Answer::Lost,
        };
        let told = |answers: &Vec<Renewed>| Reply::Renew(answers.iter().map(held).collect());
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
        let write = |append: &leasehold_core::backend::LogAppend| Write {
            job: append.job,
            token: append.token,
            verdict: String::new(),
            span: 0,
        };
        let call = Call::Log(request.appends.iter().map(write).collect());
        let told = |answers: &Vec<Answer>| Reply::Log(answers.clone());
        self.record(call, self.inner.append_logs(deadline, request), told).await
    }

    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage> {
        self.pass("read_logs", self.inner.read_logs(deadline, request)).await
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
        self.pass("counts", self.inner.counts(deadline, request)).await
    }

    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended> {
        let call = Call::Amend(change(&request));
        let told = |amended: &Amended| {
            let changed = amended.jobs.iter().filter(|(_, answer)| *answer == AmendAnswer::Applied);
            Reply::Amend(changed.map(|(job, _)| *job).collect())
        };
        self.record(call, self.inner.amend(deadline, request), told).await
    }

    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()> {
        self.pass("set_queue", self.inner.set_queue(deadline, request)).await
    }

    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>> {
        self.pass("queues", self.inner.queues(deadline)).await
    }

    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        let told = |pruned: &Pruned| Reply::Prune(pruned.jobs);
        self.record(Call::Prune, self.inner.prune(deadline, request), told).await
    }

    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn> {
        self.pass("check_in", self.inner.check_in(deadline, request)).await
    }

    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>> {
        self.pass("workers", self.inner.workers(deadline, request)).await
    }

    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64> {
        self.pass("stop_workers", self.inner.stop_workers(deadline, request)).await
    }

    async fn put_schedule(&self, deadline: Deadline, request: PutSchedule) -> Result<()> {
        self.pass("put_schedule", self.inner.put_schedule(deadline, request)).await
    }

    async fn schedules(&self, deadline: Deadline, request: Schedules) -> Result<Vec<Schedule>> {
        self.pass("schedules", self.inner.schedules(deadline, request)).await
    }

    async fn delete_schedule(&self, deadline: Deadline, request: DeleteSchedule) -> Result<bool> {
        self.pass("delete_schedule", self.inner.delete_schedule(deadline, request)).await
    }

    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>> {
        self.pass("watch", self.inner.watch(deadline, request)).await
    }
}
