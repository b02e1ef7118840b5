//! Streams events: see `Backend::watch`.
//!
//! Whoever changes something adds a signal to a small capped collection; whoever watches has a cursor that waits at
//! its end (`tail.rs`), or reads a change stream (`changes.rs`). Signals are hints: they are sent after the change was
//! acknowledged, many at a time, and may be lost. New log lines are not signalled: who asks for them waits at the end of
//! the lines themselves.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, select};
use leasehold_core::authoring::events::wanted;
use leasehold_core::backend::{Event, Watch};
use leasehold_core::{JobId, LeasedJob, QueueName, State};
use mongodb::bson::{Document, doc};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::capped;
use crate::error::Done;
use crate::record::{self, RUNNING, WAITING};
use crate::session::{Db, Kept};
use crate::tail::{self, What};

/// Signals that wait to be sent; beyond it they become one that something is missing.
const WAIT: usize = 1_024;
/// Events that go into one signal.
const TOGETHER: usize = 1_024;
/// Jobs whose new states are looked up for one signal; of more it is only said that something changed.
const LOOKED_UP: usize = 64;
/// After so many signals it is looked whether their collection is still capped, for nobody may watch.
const LOOK: u32 = 1_000;
/// How long a signal may take, for which nobody waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a signal is followed by none, so that those of a busy process are few; the first is never held back.
const BETWEEN: Duration = Duration::from_millis(25);
/// How seldom it is said that jobs changed, when many do.
const SELDOM: Duration = Duration::from_millis(100);

/// What this process has to tell, and who listens.
#[derive(Default)]
pub(crate) struct Signals {
    out: OnceLock<mpsc::Sender<Note>>,
    lost: AtomicBool,
}

/// Something to be told.
enum Note {
    /// What is to be said of a queue.
    Queue(&'static str, String),
    /// Jobs that were taken, each as an event.
    Taken(Vec<Document>),
    /// Jobs that have changed: their states are looked up when they are told.
    Changed(Vec<JobId>),
    /// The same of jobs that may wait again, of which more hangs on being told.
    Back(Vec<JobId>),
}

impl Signals {
    /// Tells something of a queue.
    pub(crate) fn tell(&self, what: &'static str, queue: &str) {
        self.send(Note::Queue(what, queue.to_owned()));
    }

    /// Tells of jobs that were taken. They may have ended by the time that this is told.
    pub(crate) fn taken(&self, jobs: &[LeasedJob]) {
        if jobs.len() > LOOKED_UP {
            self.send(Note::Changed(jobs.iter().map(|leased| leased.job.id).collect()));
            return;
        }
        let taken = |LeasedJob { job, .. }: &LeasedJob| {
            let (id, queue) = (record::uuid(job.id.as_uuid()), job.queue.as_str());
            doc! {"changed": id, "queue": queue, "state": RUNNING}
        };
        if !jobs.is_empty() {
            self.send(Note::Taken(jobs.iter().map(taken).collect()));
        }
    }

    /// Tells of jobs that have changed, and of such that may wait again.
    pub(crate) fn look_at(&self, changed: Vec<JobId>, back: Vec<JobId>) {
        if !changed.is_empty() {
            self.send(Note::Changed(changed));
        }
        if !back.is_empty() {
            self.send(Note::Back(back));
        }
    }

    fn send(&self, note: Note) {
        if self.out.get().is_some_and(|out| out.try_send(note).is_err()) {
            self.lost.store(true, Ordering::Relaxed);
        }
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
    let (mut last_said, mut sent): (Option<Instant>, u32) = (None, 0);
    while let Some(first) = notes.recv().await {
        let (mut queues, mut events, mut jobs, mut back) = (BTreeSet::new(), Vec::new(), Vec::new(), false);
        let mut next = Some(first);
        while let Some(note) = next {
            match note {
                Note::Queue(what, queue) => drop(queues.insert((what, queue))),
                Note::Taken(taken) => events.extend(taken),
                Note::Changed(changed) => jobs.extend(changed),
                Note::Back(waiting) => {
                    jobs.extend(waiting);
                    back = true;
                }
            }
            let full = queues.len() + events.len() >= TOGETHER;
            next = if full { None } else { notes.try_recv().ok() };
        }
        events.extend(queues.into_iter().map(|(what, queue)| doc! {what: queue}));
        let Some(db) = db.upgrade() else { return };
        let (lost, many) = (db.signals.lost.swap(false, Ordering::Relaxed), jobs.len() > LOOKED_UP);
        if !many && let Ok(Ok(changed)) = timeout(PATIENCE, states(&db, &jobs)).await {
            events.extend(changed);
        }
        if lost || many && back {
            events.push(doc! {"gap": true});
        } else if many && last_said.is_none_or(|at| at.elapsed() > SELDOM) {
            last_said = Some(Instant::now());
            events.push(doc! {"changes": true});
        }
        if !events.is_empty() {
            let signals = db.quickly(Kept::Signals);
            // One that is lost delays nobody beyond a poll (F3).
            let _ = timeout(PATIENCE, signals.insert_one(doc! {"events": events})).await;
            sent = sent.wrapping_add(1);
            if sent.is_multiple_of(LOOK) {
                let _ = timeout(PATIENCE, capped::mend(&db, Kept::Signals)).await;
            }
            drop(db);
            sleep(BETWEEN).await;
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
    for job in jobs.iter().filter_map(|id| found.get(id)) {
        let now = job.get_datetime("now").map_or(i64::MAX, |now| now.timestamp_millis());
        for event in told_of(job, now) {
            if !events.contains(&event) {
                events.push(event);
            }
        }
    }
    Ok(events)
}

/// What is told of a job as it is `now`, in milliseconds.
pub(crate) fn told_of(job: &Document, now: i64) -> Vec<Document> {
    let (Some(id), Ok(queue), Ok(state)) = (job.get("_id"), job.get_str("queue"), job.get_str("state"))
    else {
        return Vec::new();
    };
    let mut events = Vec::new();
    let mut state = state;
    if state == WAITING {
        events.push(doc! {"waiting": queue});
        let later = job.get_datetime("due").is_ok_and(|due| due.timestamp_millis() > now);
        state = if later { State::Scheduled.into() } else { State::Queued.into() };
    }
    if state == RUNNING && job.get_bool("cancel_requested").unwrap_or(false) {
        events.push(doc! {"cancel_requested": id, "queue": queue});
    }
    events.push(doc! {"changed": id, "queue": queue, "state": state});
    events
}

pub(crate) async fn watch(db: &Arc<Db>, request: Watch) -> Done<BoxStream<'static, Event>> {
    let mut events = tail::listen(db, What::Changes).await?;
    if request.logs {
        events = select(events, tail::listen(db, What::Lines).await?).boxed();
    }
    Ok(wanted(events, request))
}

/// The event of a signal; what a newer program may tell is taken for a gap.
pub(crate) fn event(signal: &Document) -> Option<Event> {
    let (told, about) = signal.iter().next()?;
    let queue = |text: &str| QueueName::new(text).ok();
    let of = || queue(signal.get_str("queue").ok()?);
    let job = || record::as_uuid(about).map(JobId::from_uuid);
    Some(match told.as_str() {
        "waiting" => Event::Waiting { queue: queue(about.as_str()?)? },
        "changes" => Event::Changes,
        "queue_set" => Event::QueueSet { queue: queue(about.as_str()?)? },
        "changed" => {
            let state: State = signal.get_str("state").ok()?.parse().ok()?;
            Event::Changed { job: job()?, queue: of()?, state }
        }
        "cancel_requested" => Event::CancelRequested { job: job()?, queue: of()? },
        _ => Event::Gap,
    })
}
