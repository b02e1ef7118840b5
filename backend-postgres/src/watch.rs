//! Streams events: see `Backend::watch`.
//!
//! Whoever changes something tells it by `NOTIFY` after the change was acknowledged, many events at a time and not
//! more often than every 25 ms: notifications hold a lock of the whole database while they are committed, so they are in
//! no transaction of a queue's. They are hints, and may be lost. New log lines are told where only those listen who
//! asked for them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, select};
use leasehold_core::authoring::events::{heard, wanted};
use leasehold_core::backend::{Event, Watch};
use leasehold_core::{Error, ErrorKind, JobId, QueueName, State};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::error::Done;
use crate::session::Db;

/// Events that wait to be sent; beyond it they become one that something is missing.
const WAIT: usize = 4_096;
/// Jobs that are told of one by one in one go; of more it is only said that something changed.
const ONE_BY_ONE: usize = 64;
/// How long a notification may take, for which nobody waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a notification is followed by none, so that those of a busy process are few; the first is never held back.
const BETWEEN: Duration = Duration::from_millis(25);
/// How seldom it is said that jobs changed, when many do.
const SELDOM: Duration = Duration::from_millis(100);
/// Events that a reader may be behind.
const BEHIND: usize = 1_024;
/// The longest notification in bytes, less than the server takes.
const LONGEST: usize = 7_000;

/// An event as it is sent. What a newer program may send is taken for a gap.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Signal {
    Waiting(String),
    Changed(JobId, String, State),
    Changes,
    CancelRequested(JobId, String),
    Logged(JobId, String),
    QueueSet(String),
    Gap,
}

impl Signal {
    fn of(event: Event) -> Self {
        match event {
            Event::Waiting { queue } => Self::Waiting(queue.into()),
            Event::Changed { job, queue, state } => Self::Changed(job, queue.into(), state),
            Event::Changes => Self::Changes,
            Event::CancelRequested { job, queue } => Self::CancelRequested(job, queue.into()),
            Event::Logged { job, queue } => Self::Logged(job, queue.into()),
            Event::QueueSet { queue } => Self::QueueSet(queue.into()),
            _ => Self::Gap,
        }
    }

    fn event(self) -> Option<Event> {
        let name = |queue: String| QueueName::new(queue).ok();
        Some(match self {
            Self::Waiting(queue) => Event::Waiting { queue: name(queue)? },
            Self::Changed(job, queue, state) => Event::Changed { job, queue: name(queue)?, state },
            Self::Changes => Event::Changes,
            Self::CancelRequested(job, queue) => Event::CancelRequested { job, queue: name(queue)? },
            Self::Logged(job, queue) => Event::Logged { job, queue: name(queue)? },
            Self::QueueSet(queue) => Event::QueueSet { queue: name(queue)? },
            Self::Gap => Event::Gap,
        })
    }
}

/// Events as the texts of notifications, as few as can hold them.
pub(crate) fn signals(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for event in events {
        // Names and ids can always be written.
        let Ok(signal) = serde_json::to_string(&Signal::of(event)) else { continue };
        match texts.last_mut() {
            Some(text) if text.len() + signal.len() < LONGEST => {
                text.push(',');
                text.push_str(&signal);
            }
            _ => texts.push(format!("[{signal}")),
        }
    }
    texts.iter_mut().for_each(|text| text.push(']'));
    texts
}

/// The events in a notification, which anybody may have sent.
fn events(text: &str) -> Vec<Event> {
    let signals = serde_json::from_str::<Vec<serde_json::Value>>(text).unwrap_or_default();
    let event =
        |signal| serde_json::from_value::<Signal>(signal).ok().and_then(Signal::event).unwrap_or(Event::Gap);
    signals.into_iter().map(event).collect()
}

/// What this process has to tell.
#[derive(Default)]
pub(crate) struct Signals {
    out: OnceLock<mpsc::Sender<Event>>,
    lost: AtomicBool,
}

impl Signals {
    /// Tells of events, which nobody waits for.
    pub(crate) fn tell(&self, events: impl IntoIterator<Item = Event>) {
        let Some(out) = self.out.get() else { return };
        let (changes, lines) = gathered(events.into_iter());
        for event in changes.into_iter().chain(lines) {
            if out.try_send(event).is_err() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Starts to send what is told. It ends with the store.
pub(crate) fn start(db: &Arc<Db>) {
    let (out, events) = mpsc::channel(WAIT);
    if !db.pooler && db.signals.out.set(out).is_ok() {
        tokio::spawn(send_all(Arc::downgrade(db), events));
    }
}

async fn send_all(db: Weak<Db>, mut events: mpsc::Receiver<Event>) {
    let (mut last_said, mut owed): (Option<Instant>, bool) = (None, false);
    let mut some = Vec::with_capacity(WAIT);
    loop {
        let received = events.recv_many(&mut some, WAIT);
        // What was held back is said in time, also if nothing more comes.
        let patience = if owed { SELDOM } else { Duration::MAX };
        if timeout(patience, received).await == Ok(0) {
            return;
        }
        let Some(db) = db.upgrade() else { return };
        let (mut changes, mut lines) = gathered(some.drain(..));
        owed |= changes.contains(&Event::Changes);
        changes.retain(|event| *event != Event::Changes);
        if owed && last_said.is_none_or(|at| at.elapsed() >= SELDOM) {
            (last_said, owed) = (Some(Instant::now()), false);
            changes.push(Event::Changes);
        }
        if db.signals.lost.swap(false, Ordering::Relaxed) {
            (changes, lines) = (vec![Event::Gap], Vec::new());
        }
        if !changes.is_empty() || !lines.is_empty() {
            // One that is lost delays nobody beyond a poll (F3).
            let _ = timeout(PATIENCE, notify(&db, changes, lines)).await;
        }
        drop(db);
        sleep(BETWEEN).await;
    }
}

/// Events without those that say nothing new, and apart from them those of new lines.
fn gathered(events: impl Iterator<Item = Event>) -> (Vec<Event>, Vec<Event>) {
    let (mut queues, mut jobs, mut others, mut lines) = (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
    let mut many = false;
    for event in events {
        match event {
            Event::Waiting { queue } => drop(queues.insert(queue)),
            // One more shows that there are too many.
            Event::Changed { .. } if jobs.len() > ONE_BY_ONE => {}
            Event::Changed { .. } => jobs.push(event),
            Event::Changes => many = true,
            Event::Logged { .. } if lines.len() > ONE_BY_ONE || lines.contains(&event) => {}
            Event::Logged { .. } => lines.push(event),
            _ => others.push(event),
        }
    }
    if many || jobs.len() > ONE_BY_ONE {
        jobs = vec![Event::Changes];
    }
    if lines.len() > ONE_BY_ONE {
        lines = vec![Event::Gap];
    }
    others.extend(queues.into_iter().map(|queue| Event::Waiting { queue }));
    others.extend(jobs);
    (others, lines)
}

async fn notify(db: &Db, changes: Vec<Event>, lines: Vec<Event>) -> Done<()> {
    const NOTIFY: &str = "SELECT pg_notify(leasehold.channel() || s.kind, s.text) FROM (
        SELECT '' AS kind, unnest($1::text[]) AS text UNION ALL SELECT '_lines', unnest($2::text[])) AS s";
    let mut lent = db.pool.lend().await?;
    db.query(NOTIFY).bind(signals(changes)).bind(signals(lines)).execute(&mut lent.conn).await?;
    lent.give_back();
    Ok(())
}

/// What this process listens to: changes and new lines, each from the first time that somebody asks.
#[derive(Default)]
pub(crate) struct Ears {
    changes: tokio::sync::Mutex<Option<broadcast::Sender<Event>>>,
    lines: tokio::sync::Mutex<Option<broadcast::Sender<Event>>>,
    listening: Mutex<Vec<AbortHandle>>,
}

impl Ears {
    /// Listens no more; streams end.
    pub(crate) fn close(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.drain(..).for_each(|task| task.abort());
        for ear in [&self.changes, &self.lines] {
            if let Ok(mut ear) = ear.try_lock() {
                *ear = None;
            }
        }
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.close();
    }
}

pub(crate) async fn watch(db: &Db, request: Watch) -> Done<BoxStream<'static, Event>> {
    if db.pooler {
        let why = "events need a session of their own, which a pooler in transaction mode does not give";
        return Err(Error::new(ErrorKind::Unsupported, why).into());
    }
    let mut events = hear(db, &db.ears.changes, "").await?;
    if request.logs {
        events = select(events, hear(db, &db.ears.lines, "_lines").await?).boxed();
    }
    Ok(wanted(events, request))
}

async fn hear(
    db: &Db,
    ear: &tokio::sync::Mutex<Option<broadcast::Sender<Event>>>,
    kind: &str,
) -> Done<BoxStream<'static, Event>> {
    let mut ear = ear.lock().await;
    if ear.is_none() {
        let mut lent = db.pool.lend().await?;
        let row = db.query("SELECT leasehold.channel()").fetch_one(&mut lent.conn).await?;
        let channel = row.try_get::<String, _>(0)? + kind;
        lent.give_back();
        // The driver's own pool, since its listener asks for one; it keeps no more than this connection.
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).max_lifetime(None);
        let pool = pool.idle_timeout(None).connect_lazy_with(db.pool.options().clone());
        let listener = listen(&pool, &channel).await?;
        let (told, _) = broadcast::channel(BEHIND);
        let task = tokio::spawn(pass_on(pool, channel, listener, told.downgrade()));
        db.ears.listening.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
        *ear = Some(told);
    }
    Ok(ear.as_ref().map_or_else(|| futures::stream::empty().boxed(), |told| heard(told.subscribe())))
}

async fn listen(pool: &PgPool, channel: &str) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(channel).await?;
    Ok(listener)
}

/// Passes on what is heard, and tells of a gap whenever the connection was lost.
async fn pass_on(
    pool: PgPool,
    channel: String,
    mut listener: PgListener,
    told: broadcast::WeakSender<Event>,
) {
    loop {
        let heard = listener.try_recv().await;
        let Some(told) = told.upgrade() else { return };
        // That nobody listens now is nothing to worry about.
        let tell = |event| drop(told.send(event));
        match heard {
            Ok(Some(notification)) => events(notification.payload()).into_iter().for_each(tell),
            Ok(None) => tell(Event::Gap),
            Err(error) => {
                tracing::debug!(%error, "the connection that listens broke");
                tell(Event::Gap);
                drop(told);
                listener = again(&pool, &channel).await;
            }
        }
    }
}

/// Listens anew, as soon as that is possible.
async fn again(pool: &PgPool, channel: &str) -> PgListener {
    loop {
        sleep(Duration::from_millis(fastrand::u64(200..1_000))).await;
        if let Ok(listener) = listen(pool, channel).await {
            return listener;
        }
    }
}
