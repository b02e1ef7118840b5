//! Streams events: see `Backend::watch`.
//!
//! Each script publishes what it changed in one message; a process that has watchers has one subscription, which opens
//! itself again. New log lines are published apart, so that nobody hears of them who did not ask.

use std::sync::{Arc, Mutex as BriefMutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, select};
use leasehold_core::authoring::calls::closed;
use leasehold_core::authoring::events::{heard, wanted};
use leasehold_core::backend::{Event, Watch};
use leasehold_core::{Error, ErrorKind, QueueName};
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::{Mutex, broadcast};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::error::Done;
use crate::session::Db;

/// How many events a reader may fall behind before it gets [`Event::Gap`].
const EVENTS: usize = 1_024;
/// After this long without a message it is looked whether the wire still works, and whether anybody listens.
const QUIET: Duration = Duration::from_secs(10);
/// How long a subscription, or an answer on it, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a subscription that could not be opened is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// What is published under one name.
pub(crate) struct Channel {
    name: String,
    /// None after the store was closed.
    events: BriefMutex<Option<broadcast::Sender<Event>>>,
    /// The task that reads the subscription, while there is one.
    task: Mutex<Option<AbortHandle>>,
}

/// Finds the channel that a task is for.
type Which = fn(&Db) -> &Channel;

impl Channel {
    pub(crate) fn new(name: String) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        Self { name, events: BriefMutex::new(Some(events)), task: Mutex::new(None) }
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn send(&self, event: Event) {
        if let Some(events) = &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            // The last reader may have just gone.
            let _ = events.send(event);
        }
    }

    fn readers(&self) -> usize {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map_or(0, broadcast::Sender::receiver_count)
    }

    fn subscribe(&self) -> Done<broadcast::Receiver<Event>> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(events.as_ref().map(broadcast::Sender::subscribe).ok_or_else(closed)?)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

pub(crate) async fn watch(db: &Arc<Db>, request: Watch) -> Done<BoxStream<'static, Event>> {
    let mut events = listen(db, |db| &db.changes).await?;
    if request.logs {
        events = select(events, listen(db, |db| &db.lines).await?).boxed();
    }
    Ok(wanted(events, request))
}

/// What is published from here on.
async fn listen(db: &Arc<Db>, which: Which) -> Done<BoxStream<'static, Event>> {
    let channel = which(db);
    let mut task = channel.task.lock().await;
    let events = channel.subscribe()?;
    if task.is_none() {
        let subscription = open(db, channel).await?;
        *task = Some(tokio::spawn(follow(Arc::downgrade(db), which, subscription)).abort_handle());
    }
    Ok(heard(events))
}

async fn open(db: &Db, channel: &Channel) -> Done<PubSub> {
    let opening = async {
        let mut subscription = db.client()?.get_async_pubsub().await?;
        subscription.subscribe(&channel.name).await?;
        Ok(subscription)
    };
    let late = |_| Error::new(ErrorKind::Unavailable, "the server took too long to open a subscription");
    timeout(PATIENCE, opening).await.map_err(late)?
}

/// Hands on what is published, until nobody listens or the store is gone.
async fn follow(db: Weak<Db>, which: Which, subscription: PubSub) {
    let (mut sink, mut stream) = subscription.split();
    loop {
        let next = next(&mut sink, &mut stream).await;
        let Some(db) = db.upgrade() else { return };
        let channel = which(&db);
        match next {
            Next::Message(message) => {
                message
                    .lines()
                    .map(|line| event(line).unwrap_or(Event::Gap))
                    .for_each(|event| channel.send(event));
            }
            Next::Silence => {
                // Under the lock, so that nobody begins to listen meanwhile and takes this task for one that goes on.
                let mut task = channel.task.lock().await;
                if channel.readers() == 0 {
                    *task = None;
                    return;
                }
            }
            Next::Broken => {
                tracing::debug!("the subscription broke; opening it again");
                match open(&db, channel).await {
                    Ok(subscription) => {
                        (sink, stream) = subscription.split();
                        channel.send(Event::Gap);
                    }
                    Err(_) => {
                        drop(db);
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    }
}

/// What comes out of a subscription.
enum Next {
    Message(String),
    /// Nothing for a while, on a wire that works.
    Silence,
    /// Nothing any more.
    Broken,
}

async fn next(sink: &mut PubSubSink, stream: &mut PubSubStream) -> Next {
    match timeout(QUIET, stream.next()).await {
        // What a stranger may publish there is taken for a gap.
        Ok(Some(message)) => Next::Message(message.get_payload().unwrap_or_else(|_| "?".into())),
        Ok(None) => Next::Broken,
        Err(_) => match timeout(PATIENCE, sink.ping::<redis::Value>()).await {
            Ok(Ok(_)) => Next::Silence,
            _ => Next::Broken,
        },
    }
}

/// The event that a line tells of; what a newer program may tell is not known.
fn event(line: &str) -> Option<Event> {
    let mut parts = line.split('\t');
    let what = parts.next()?;
    let mut part = || parts.next();
    let queue = |name: Option<&str>| QueueName::new(name?).ok();
    Some(match what {
        "waiting" => Event::Waiting { queue: queue(part())? },
        "queue" => Event::QueueSet { queue: queue(part())? },
        "changes" => Event::Changes,
        "changed" => {
            let (job, queue, state) = (part()?.parse().ok()?, queue(part())?, part()?.parse().ok()?);
            Event::Changed { job, queue, state }
        }
        "cancel" => Event::CancelRequested { job: part()?.parse().ok()?, queue: queue(part())? },
        "logged" => Event::Logged { job: part()?.parse().ok()?, queue: queue(part())? },
        _ => return None,
    })
}
