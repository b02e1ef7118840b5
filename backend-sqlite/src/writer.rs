//! The one writer of a process: a task that owns a connection and commits what waits in groups.
//!
//! SQLite lets one connection write at a time, and a durable commit costs a disk flush. So writes do not fight
//! for the lock but queue up here, and as many as wait share one transaction and one flush. Each runs under a
//! savepoint of its own, so one that fails harms no other, and none is answered before the commit.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_core::authoring::calls::{closed, late, no_answer};
use leasehold_core::backend::{Event, LogCaps};
use leasehold_core::{Deadline, Error, ErrorKind, JobId, QueueName, Result, State, Timestamp};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout_at};

use crate::config::Config;
use crate::error::{BUSY, Done, FULL, Fault, primary_code};
use crate::schema;

/// How many operations share a commit at most.
const GROUP: usize = 256;
/// How many operations may wait before callers have to wait to queue up.
const WAITING: usize = 1024;
/// How many events a reader may fall behind before it gets [`Event::Gap`].
const EVENTS: usize = 1024;
/// How often to look whether another process changed the file, while somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What an operation works with: a connection inside a transaction, and the one moment at which it happens.
pub(crate) struct Session {
    pub(crate) conn: SqliteConnection,
    pub(crate) now: Timestamp,
    pub(crate) caps: LogCaps,
    watched: bool,
    events: Vec<Event>,
}

impl Session {
    /// Tells watchers, if there are any, once the operation is committed.
    pub(crate) fn tell(&mut self, event: impl FnOnce() -> Event) {
        if self.watched {
            let event = event();
            if self.events.last() != Some(&event) {
                self.events.push(event);
            }
        }
    }

    /// Takes back all that the present operation did.
    pub(crate) async fn undo(&mut self) -> Done<()> {
        run_sql(self, "ROLLBACK TO call").await
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// Tells watchers of a job's new state.
    pub(crate) fn tell_state(&mut self, job: JobId, queue: &str, state: State) {
        if self.watched
            && let Ok(queue) = QueueName::new(queue)
        {
            if state.is_waiting() {
                self.tell(|| Event::Waiting { queue: queue.clone() });
            }
            self.tell(|| Event::Changed { job, queue, state });
        }
    }
}

/// A handle of the writer.
#[derive(Debug)]
pub(crate) struct Writer {
    calls: mpsc::Sender<Message>,
    events: broadcast::WeakSender<Event>,
    task: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Call(Box<dyn Call>),
    /// Somebody watches from now on.
    Watch,
    Close,
}

impl Writer {
    /// Starts the writer on an open connection. It ends when the last handle is dropped, or by `close`.
    pub(crate) fn start(config: Arc<Config>, conn: SqliteConnection) -> Self {
        let (calls, waiting) = mpsc::channel(WAITING);
        let (events, _) = broadcast::channel(EVENTS);
        let weak = events.downgrade();
        let session = Some(session(&config, conn));
        let actor = Actor { config, session, events, seen: None };
        Self { calls, events: weak, task: Mutex::new(Some(tokio::spawn(actor.run(waiting)))) }
    }

    /// Runs `work` in a transaction, and answers when it is committed.
    pub(crate) async fn call<T, F>(&self, deadline: Deadline, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Done<T>> + Send + 'static,
    {
        if deadline.has_passed() {
            return Err(late());
        }
        let (reply, answer) = oneshot::channel();
        let call = Message::Call(Box::new(Pending { deadline, work: Some(work), outcome: None, reply }));
        match timeout_at(deadline.instant(), self.calls.send(call)).await {
            Err(_) => return Err(late()),
            Ok(Err(_)) => return Err(closed()),
            Ok(Ok(())) => {}
        }
        match timeout_at(deadline.instant(), answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::new(ErrorKind::Unknown, "the writer stopped before it answered")),
            Err(_) => Err(no_answer(true)),
        }
    }

    /// The events from now on.
    pub(crate) async fn watch(&self) -> Result<broadcast::Receiver<Event>> {
        let events = self.events.upgrade().ok_or_else(closed)?.subscribe();
        self.calls.send(Message::Watch).await.map_err(|_| closed())?;
        Ok(events)
    }

    /// Answers what waits, refuses what comes, and ends the task.
    pub(crate) async fn close(&self) {
        let mut task = self.task.lock().await;
        if let Some(task) = task.as_mut() {
            // If it cannot be told it has ended already.
            let _ = self.calls.send(Message::Close).await;
            let _ = task.await;
        }
        *task = None;
    }
}

fn session(config: &Config, conn: SqliteConnection) -> Session {
    let (now, caps) = (config.clock.now(), config.log_caps);
    Session { conn, now, caps, watched: false, events: Vec::new() }
}

fn panicked() -> Fault {
    Error::new(ErrorKind::Internal, "the operation panicked and was taken back; please report this").into()
}

/// One operation on its way through the writer.
trait Call: Send {
    /// Whether there is still somebody who waits for it, in time.
    fn is_wanted(&self) -> bool;
    /// Runs it, and tells whether it succeeded.
    fn run<'s>(&'s mut self, session: &'s mut Session) -> BoxFuture<'s, bool>;
    /// Answers the caller: with what the operation gave, or with why its transaction failed.
    fn answer(self: Box<Self>, failure: Option<&Failure>);
}

/// Why a transaction failed, told to each of its callers.
struct Failure(ErrorKind, String);

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let error = Error::from(fault);
        Self(error.kind(), error.message().to_owned())
    }
}

struct Pending<T, F> {
    deadline: Deadline,
    work: Option<F>,
    outcome: Option<Done<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Call for Pending<T, F>
where
    T: Send,
    F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Done<T>> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && !self.deadline.has_passed()
    }

    fn run<'s>(&'s mut self, session: &'s mut Session) -> BoxFuture<'s, bool> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return false };
            // A panic would end the writer, and with it every call from then on.
            let working = AssertUnwindSafe(async { work(session).await }).catch_unwind().await;
            self.outcome.insert(working.unwrap_or_else(|_| Err(panicked()))).is_ok()
        })
    }

    fn answer(self: Box<Self>, failure: Option<&Failure>) {
        let answer = match (self.outcome, failure) {
            (Some(Err(fault)), _) => Err(fault.into()),
            (_, Some(Failure(kind, why))) => Err(Error::new(*kind, why)),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(late()),
        };
        // A caller that has gone is not owed an answer.
        let _ = self.reply.send(answer);
    }
}

struct Actor {
    config: Arc<Config>,
    /// None after the connection broke, until the next call.
    session: Option<Session>,
    events: broadcast::Sender<Event>,
    /// The version of the data when we last looked: it changes when another connection commits.
    seen: Option<i64>,
}

impl Actor {
    async fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.seen = self.data_version().await;
        let mut messages = Vec::with_capacity(GROUP);
        loop {
            let watched = self.events.receiver_count() > 0;
            tokio::select! {
                biased;
                _ = look.tick(), if watched => self.look().await,
                n = waiting.recv_many(&mut messages, GROUP) => match n {
                    0 => break,
                    _ => self.work(messages.drain(..), &mut waiting).await,
                },
            }
        }
        if let Some(session) = self.session {
            let _ = session.conn.close().await;
        }
    }

    async fn work(&mut self, messages: impl Iterator<Item = Message>, waiting: &mut mpsc::Receiver<Message>) {
        let mut calls = Vec::new();
        for message in messages {
            match message {
                Message::Call(call) => calls.push(call),
                Message::Watch => {}
                Message::Close => waiting.close(),
            }
        }
        let failure = self.transact(&mut calls).await.err();
        for call in calls {
            call.answer(failure.as_ref());
        }
    }

    /// Runs the calls in one transaction.
    async fn transact(&mut self, calls: &mut [Box<dyn Call>]) -> std::result::Result<(), Failure> {
        if !calls.iter().any(|call| call.is_wanted()) {
            return Ok(());
        }
        // The session comes back only when it is known to be outside of any transaction.
        let mut session = self.open_session().await?;
        let outcome = self.begin_run_commit(&mut session, calls).await;
        let events = std::mem::take(&mut session.events);
        if outcome.is_ok() {
            // There may be no watcher any more.
            events.into_iter().for_each(|event| drop(self.events.send(event)));
            self.session = Some(session);
        } else if is_idle(&mut session.conn).await {
            self.session = Some(session);
        }
        outcome
    }

    async fn begin_run_commit(
        &self,
        session: &mut Session,
        calls: &mut [Box<dyn Call>],
    ) -> std::result::Result<(), Failure> {
        run_sql(session, "BEGIN IMMEDIATE; SAVEPOINT call").await?;
        leasehold_core::fail_point!("write::after_send");
        session.watched = self.events.receiver_count() > 0;
        for call in calls.iter_mut().filter(|call| call.is_wanted()) {
            session.now = self.config.clock.now();
            let told = session.events.len();
            let kept = if call.run(session).await {
                run_sql(session, "RELEASE call; SAVEPOINT call").await
            } else {
                session.events.truncate(told);
                session.undo().await
            };
            kept.map_err(rolled_back)?;
        }
        leasehold_core::fail_point!("write::applied");
        run_sql(session, "COMMIT").await.map_err(commit_failed)?;
        leasehold_core::fail_point!("write::acted");
        Ok(())
    }

    async fn open_session(&mut self) -> std::result::Result<Session, Failure> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let conn = schema::connect_writer(&self.config).await.map_err(Fault::Ours)?;
        tracing::info!(path = %self.config.path.display(), "connected to the file again");
        Ok(session(&self.config, conn))
    }

    /// Tells watchers if another process changed the file.
    async fn look(&mut self) {
        let version = self.data_version().await;
        if version != self.seen {
            self.seen = version;
            let _ = self.events.send(Event::Gap);
        }
    }

    async fn data_version(&mut self) -> Option<i64> {
        let session = self.session.as_mut()?;
        sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut session.conn).await.ok()
    }
}

/// SQLite took the whole transaction back, for what another call did.
fn rolled_back(fault: Fault) -> Failure {
    let Failure(_, why) = fault.into();
    Failure(ErrorKind::Unavailable, format!("the transaction was rolled back, repeat the call: {why}"))
}

/// After a failed commit most errors leave open whether it stands (clause E1).
fn commit_failed(fault: Fault) -> Failure {
    let certain = matches!(&fault, Fault::Driver(error) if matches!(primary_code(error), Some(BUSY | FULL)));
    let Failure(kind, why) = fault.into();
    Failure(if certain { kind } else { ErrorKind::Unknown }, format!("the commit failed: {why}"))
}

async fn run_sql(session: &mut Session, sql: &'static str) -> Done<()> {
    sqlx::query(sql).execute(&mut session.conn).await?;
    Ok(())
}

/// Ends the transaction that failed, and tells whether the connection can be used again.
async fn is_idle(conn: &mut SqliteConnection) -> bool {
    match sqlx::query("ROLLBACK").execute(conn).await {
        Ok(_) => true,
        // SQLite itself rolls back after some errors.
        Err(sqlx::Error::Database(error)) => error.message().contains("no transaction is active"),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(session: &mut Session) -> BoxFuture<'_, Done<()>> {
        Box::pin(run_sql(session, "CREATE TABLE t (x)"))
    }

    fn panic(session: &mut Session) -> BoxFuture<'_, Done<()>> {
        Box::pin(async {
            run_sql(session, "INSERT INTO t VALUES (1)").await?;
            panic!("as this test wants")
        })
    }

    fn count(session: &mut Session) -> BoxFuture<'_, Done<i64>> {
        let count = sqlx::query_scalar("SELECT count(*) FROM t");
        Box::pin(async { Ok(count.fetch_one(&mut session.conn).await?) })
    }

    #[tokio::test]
    async fn an_operation_that_panics_is_taken_back_and_ends_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(Config::new(folder.path().join("jobs.db")));
        let writer = Writer::start(Arc::clone(&config), schema::connect_writer(&config).await.unwrap());
        let soon = Deadline::after(Duration::from_secs(30));
        writer.call(soon, create).await.unwrap();
        let error = writer.call(soon, panic).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert_eq!(writer.call(soon, count).await.unwrap(), 0);
    }
}
