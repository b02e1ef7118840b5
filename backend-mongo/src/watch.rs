//! Streams events: see `Backend::watch`.
//!
//! Whoever changes something adds a signal to a small capped collection; whoever watches has a cursor that waits at
//! its end. Signals are hints: they are sent after the change was acknowledged, many at a time, and may be lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::stream::{BoxStream, unfold};
use futures::{StreamExt, TryStreamExt};
use leasehold_core::backend::{Event, Watch};
use leasehold_core::{JobId, QueueName, State};
use mongodb::Cursor;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{CollectionOptions, CursorType, ReadConcern, WriteConcern};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::error::Done;
use crate::record::{self, RUNNING, WAITING};
use crate::session::{Db, Kept};

/// Signals that wait to be sent; beyond it they become one that something is missing.
const WAIT: usize = 1_024;
/// Events that wait for a reader; beyond it it is told of the gap.
const BEHIND: usize = 1_024;
/// Jobs whose new states are looked up for one signal; of more it is only said that something changed.
const LOOKED_UP: usize = 64;
/// How seldom it is said that something changed, when much does.
const SELDOM: Duration = Duration::from_millis(100);

/// What this process has to tell, and who listens.
#[derive(Default)]
pub(crate) struct Signals {
    out: OnceLock<mpsc::Sender<Note>>,
    lost: AtomicBool,
    heard: Mutex<Option<broadcast::WeakSender<Event>>>,
    tail: StdMutex<Option<AbortHandle>>,
}

/// Something to be told.
enum Note {
    Event(Document),
    /// Jobs that have changed: their states are looked up when they are told.
    Changed(Vec<JobId>),
}

impl Signals {
    /// Tells an event.
    pub(crate) fn tell(&self, event: Document) {
        self.send(Note::Event(event));
    }

    /// Tells of jobs that have changed.
    pub(crate) fn look_at(&self, jobs: Vec<JobId>) {
        if !jobs.is_empty() {
            self.send(Note::Changed(jobs));
        }
    }

    fn send(&self, note: Note) {
        if self.out.get().is_some_and(|out| out.try_send(note).is_err()) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the streams of events.
    pub(crate) fn close(&self) {
        if let Some(tail) = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tail.abort();
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.close();
    }
}

/// Starts to send what is told. It ends with the store.
pub(crate) fn start(db: &Arc<Db>) {
    let (out, notes) = mpsc::channel(WAIT);
    if db.signals.out.set(out).is_ok() {
        tokio::spawn(send_all(Arc::downgrade(db), notes));
    }
}

async fn send_all(db: Weak<Db>, mut notes: mpsc::Receiver<Note>) {
    let mut last_gap: Option<Instant> = None;
    while let Some(first) = notes.recv().await {
        let (mut events, mut jobs) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(note) = next {
            match note {
                Note::Event(event) if !events.contains(&event) => events.push(event),
                Note::Event(_) => {}
                Note::Changed(changed) => jobs.extend(changed),
            }
            next = if events.len() < BEHIND { notes.try_recv().ok() } else { None };
        }
        let Some(db) = db.upgrade() else { return };
        let mut missing = db.signals.lost.swap(false, Ordering::Relaxed);
        if jobs.len() > LOOKED_UP {
            missing = true;
        } else if let Ok(Ok(changed)) = timeout(Duration::from_secs(5), states(&db, &jobs)).await {
            events.extend(changed);
        }
        if missing && last_gap.is_none_or(|at| at.elapsed() > SELDOM) {
            last_gap = Some(Instant::now());
            events.push(doc! {"gap": true});
        }
        if !events.is_empty() {
            let options = CollectionOptions::builder().write_concern(WriteConcern::nodes(1)).build();
            let signals = db.database.collection_with_options::<Document>(&db.name(Kept::Signals), options);
            // One that is lost delays nobody beyond a poll (F3).
            let _ = timeout(Duration::from_secs(5), signals.insert_one(doc! {"events": events})).await;
        }
    }
}

/// The states that jobs are in by now, as events.
async fn states(db: &Db, jobs: &[JobId]) -> Done<Vec<Document>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let found = record::load(db, record::ids(jobs), &["queue", "state", "due", "cancel_requested"]).await?;
    let mut events = Vec::new();
    for id in jobs {
        let Some(job) = found.get(id) else { continue };
        let (Ok(queue), Ok(state)) = (job.get_str("queue"), job.get_str("state")) else { continue };
        let mut state = state;
        if state == WAITING {
            let waiting = doc! {"waiting": queue};
            if !events.contains(&waiting) {
                events.push(waiting);
            }
            let later =
                job.get_datetime("due").is_ok_and(|due| job.get_datetime("now").is_ok_and(|now| due > now));
            state = if later { State::Scheduled.into() } else { State::Queued.into() };
        }
        let id = record::uuid(id.as_uuid());
        if state == RUNNING && job.get_bool("cancel_requested").unwrap_or(false) {
            events.push(doc! {"cancel_requested": id.clone(), "queue": queue});
        }
        events.push(doc! {"changed": id, "queue": queue, "state": state});
    }
    Ok(events)
}

pub(crate) async fn watch(db: &Arc<Db>, request: Watch) -> Done<BoxStream<'static, Event>> {
    let mut heard = db.signals.heard.lock().await;
    let known = heard.as_ref().and_then(broadcast::WeakSender::upgrade);
    let events = match known {
        Some(sender) => sender.subscribe(),
        None => {
            let cursor = open(db).await?;
            let (sender, events) = broadcast::channel(BEHIND);
            *heard = Some(sender.downgrade());
            let tail = tokio::spawn(follow(Arc::downgrade(db), cursor, sender)).abort_handle();
            *db.signals.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
            events
        }
    };
    let events = unfold(events, async |mut events| match events.recv().await {
        Ok(event) => Some((event, events)),
        Err(RecvError::Lagged(_)) => Some((Event::Gap, events)),
        Err(RecvError::Closed) => None,
    });
    let wanted = move |event: &Event| match (&request.queues, event.queue()) {
        (Some(queues), Some(queue)) => queues.contains(queue),
        _ => true,
    };
    Ok(events.filter(move |event| std::future::ready(wanted(event))).boxed())
}

/// Opens a cursor that waits for what comes after the present end.
async fn open(db: &Db) -> Done<Cursor<Document>> {
    let options = CollectionOptions::builder().read_concern(ReadConcern::local()).build();
    let signals = db.database.collection_with_options::<Document>(&db.name(Kept::Signals), options);
    let last = signals.find_one(doc! {}).sort(doc! {"$natural": -1}).await?;
    let tail = signals.find(doc! {}).cursor_type(CursorType::TailableAwait);
    let mut cursor = tail.max_await_time(Duration::from_secs(1)).await?;
    let last = last.as_ref().and_then(|last| last.get("_id"));
    while last.is_some()
        && let Some(signal) = cursor.try_next().await?
    {
        if signal.get("_id") == last {
            break;
        }
    }
    Ok(cursor)
}

/// Hands on what comes, and opens the cursor again when it dies; what came meanwhile is missing.
async fn follow(db: Weak<Db>, mut cursor: Cursor<Document>, sender: broadcast::Sender<Event>) {
    const LONGEST: Duration = Duration::from_secs(5);
    let mut pause = Duration::from_millis(100);
    loop {
        while let Some(Ok(signal)) = cursor.next().await {
            pause = Duration::from_millis(100);
            let events = signal.get_array("events").map(Vec::as_slice).unwrap_or_default();
            for event in events.iter().filter_map(Bson::as_document).filter_map(event) {
                // Nobody may be listening just now.
                let _ = sender.send(event);
            }
        }
        loop {
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST);
            let Some(db) = db.upgrade() else { return };
            if let Ok(again) = open(&db).await {
                cursor = again;
                break;
            }
        }
        let _ = sender.send(Event::Gap);
    }
}

/// The event of a signal; what a newer program may tell is taken for a gap.
fn event(signal: &Document) -> Option<Event> {
    let (told, about) = signal.iter().next()?;
    let queue = |text: &str| QueueName::new(text).ok();
    let of = || queue(signal.get_str("queue").ok()?);
    let job = || record::as_uuid(about).map(JobId::from_uuid);
    Some(match told.as_str() {
        "waiting" => Event::Waiting { queue: queue(about.as_str()?)? },
        "queue_set" => Event::QueueSet { queue: queue(about.as_str()?)? },
        "changed" => {
            let state: State = signal.get_str("state").ok()?.parse().ok()?;
            Event::Changed { job: job()?, queue: of()?, state }
        }
        "cancel_requested" => Event::CancelRequested { job: job()?, queue: of()? },
        "logged" => Event::Logged { job: job()?, queue: of()? },
        _ => Event::Gap,
    })
}
