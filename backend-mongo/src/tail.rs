//! Hears what is told: one cursor per process that waits at an end, shared by all who watch, and opened again when it
//! dies. What came meanwhile is missing, and told as one gap.

use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use leasehold_core::authoring::events;
use leasehold_core::backend::Event;
use leasehold_core::{JobId, QueueName};
use mongodb::Cursor;
use mongodb::bson::{Bson, Document, doc};
use mongodb::change_stream::event::ResumeToken;
use mongodb::options::CursorType;
use tokio::sync::{Mutex, broadcast};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::config::Events;
use crate::error::{Done, code};
use crate::session::{Db, Kept};
use crate::{capped, changes, record, watch};

/// Events that wait for a reader; beyond it it is told of the gap.
const BEHIND: usize = 1_024;
/// Signals or lines that are looked at together.
const TOGETHER: usize = 512;
/// How soon it is noticed that nobody listens.
const TURN: Duration = Duration::from_secs(1);
/// How long a cursor waits on the server before it asks again.
const AWAIT: Duration = Duration::from_secs(5);
/// How soon, and how late at most, what died is opened again.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(5);

/// What is heard, a few events at a time.
pub(crate) type Feed = BoxStream<'static, Done<Vec<Event>>>;

/// What can be heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Jobs and queues.
    Changes,
    /// Log lines.
    Lines,
}

/// What this process hears, and who listens.
#[derive(Default)]
pub(crate) struct Tail {
    heard: Mutex<Option<broadcast::WeakSender<Event>>>,
    task: StdMutex<Option<AbortHandle>>,
    /// From where a change stream can go on.
    pub(crate) token: Arc<StdMutex<Option<ResumeToken>>>,
}

impl Tail {
    /// Ends the streams.
    pub(crate) fn close(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// Forgets the stream if nobody listens.
    async fn is_idle(&self, sender: &broadcast::Sender<Event>) -> bool {
        let mut heard = self.heard.lock().await;
        let idle = sender.receiver_count() == 0;
        if idle {
            *heard = None;
        }
        idle
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.close();
    }
}

/// Listens to what is told from here on. Of lines a gap tells when it begins, because that may take long.
pub(crate) async fn listen(db: &Arc<Db>, what: What) -> Done<BoxStream<'static, Event>> {
    let tail = db.tail(what);
    let mut heard = tail.heard.lock().await;
    let known = heard.as_ref().and_then(broadcast::WeakSender::upgrade);
    let receiver = match known {
        Some(sender) => sender.subscribe(),
        None => {
            let feed = match what {
                What::Changes => Some(open(db, what).await?.0),
                What::Lines => None,
            };
            let (sender, receiver) = broadcast::channel(BEHIND);
            *heard = Some(sender.downgrade());
            let task = tokio::spawn(follow(Arc::downgrade(db), what, feed, sender)).abort_handle();
            *tail.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
            receiver
        }
    };
    Ok(events::heard(receiver))
}

/// Hands on what comes until nobody listens any more.
async fn follow(db: Weak<Db>, what: What, mut feed: Option<Feed>, sender: broadcast::Sender<Event>) {
    let (mut pause, mut died) = (SOON, feed.is_some());
    loop {
        while let Some(open) = &mut feed {
            match timeout(TURN, open.next()).await {
                Ok(Some(Ok(events))) => {
                    pause = SOON;
                    for event in events {
                        // Nobody may be listening just now.
                        let _ = sender.send(event);
                    }
                }
                Ok(Some(Err(fault))) => {
                    tracing::debug!(?what, ?fault, "a stream of events broke");
                    feed = None;
                }
                Ok(None) => feed = None,
                Err(_) => {}
            }
            if sender.receiver_count() == 0 {
                match db.upgrade() {
                    Some(db) if !db.tail(what).is_idle(&sender).await => {}
                    _ => return,
                }
            }
        }
        if died {
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LATE);
        }
        died = true;
        let Some(strong) = db.upgrade() else { return };
        if strong.tail(what).is_idle(&sender).await {
            return;
        }
        match open(&strong, what).await {
            Ok((opened, whole)) => {
                feed = Some(opened);
                if !whole {
                    let _ = sender.send(Event::Gap);
                }
            }
            Err(fault) => tracing::debug!(?what, ?fault, "no events"),
        }
    }
}

/// Opens a stream of what is told, and says whether it goes on where an earlier one ended.
async fn open(db: &Db, what: What) -> Done<(Feed, bool)> {
    match (what, db.events) {
        (What::Changes, Events::Signals) => Ok((signals(db).await?, false)),
        (What::Changes, Events::ChangeStream) => changes::open(db).await,
        (What::Lines, _) => Ok((lines(db).await?, false)),
    }
}

async fn signals(db: &Db) -> Done<Feed> {
    let (mut cursor, last) = at_end(db, Kept::Signals, doc! {"$natural": -1}, |_| doc! {}).await?;
    // Ids do not tell which signal is the latest, so all are read. The last may have been overrun meanwhile.
    while let Ok(signal) = timeout(TURN, cursor.try_next()).await
        && let Some(signal) = signal?
    {
        if signal.get("_id") == Some(&last) {
            break;
        }
    }
    let told = |signals: Vec<Document>| {
        let told = signals.iter().filter_map(|signal| signal.get_array("events").ok());
        told.flatten().filter_map(Bson::as_document).filter_map(watch::event).collect()
    };
    Ok(together(cursor, told))
}

async fn lines(db: &Db) -> Done<Feed> {
    // What came before is read through the index; a scan beyond it is the price of a cursor that waits.
    let (cursor, _) = at_end(db, Kept::Logs, doc! {"_id": -1}, |last| doc! {"_id": {"$gt": last}}).await?;
    let told = |lines: Vec<Document>| {
        let mut events: Vec<Event> = Vec::new();
        for event in lines.iter().filter_map(logged) {
            if !events.contains(&event) {
                events.push(event);
            }
        }
        events
    };
    Ok(together(cursor, told))
}

fn logged(line: &Document) -> Option<Event> {
    let job = record::as_uuid(line.get("job")?).map(JobId::from_uuid)?;
    Some(Event::Logged { job, queue: QueueName::new(line.get_str("queue").ok()?).ok()? })
}

fn together(cursor: Cursor<Document>, told: impl Fn(Vec<Document>) -> Vec<Event> + Send + 'static) -> Feed {
    let parts = cursor.ready_chunks(TOGETHER);
    let told = move |part: Vec<mongodb::error::Result<Document>>| {
        part.into_iter().collect::<Result<Vec<_>, _>>().map(&told).map_err(Into::into)
    };
    parts.map(told).boxed()
}

/// Opens a cursor that waits in a capped collection, which it mends if need be, and tells the id of the last document
/// that was there before.
async fn at_end(
    db: &Db,
    kept: Kept,
    order: Document,
    filter: impl Fn(&Bson) -> Document,
) -> Done<(Cursor<Document>, Bson)> {
    const NOT_CAPPED: i32 = 2;
    let collection = db.fresh(kept);
    let mut mended = false;
    loop {
        let last = collection.find_one(doc! {}).sort(order.clone()).projection(doc! {"_id": 1}).await?;
        let Some(last) = last.and_then(|mut last| last.remove("_id")) else {
            capped::mend(db, kept).await?;
            capped::put_sentinel(db, kept).await?;
            continue;
        };
        let mut tail = collection.find(filter(&last)).cursor_type(CursorType::TailableAwait);
        if kept == Kept::Logs {
            tail = tail.projection(doc! {"job": 1, "queue": 1});
        }
        match tail.max_await_time(AWAIT).await {
            Err(error) if code(&error) == Some(NOT_CAPPED) && !mended => {
                capped::mend(db, kept).await?;
                mended = true;
            }
            opened => return Ok((opened?, last)),
        }
    }
}
