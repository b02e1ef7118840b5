use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::backend::{Backend, Event, Watch};
use crate::error::Result;
use crate::limits;
use crate::name::QueueName;
use crate::time::Deadline;

/// How soon a stream of events that broke or could not be opened is opened again.
const REOPEN: Duration = Duration::from_secs(1);
/// The shortest time between two looks at the store.
const SHORTEST: Duration = Duration::from_millis(1);
/// How long to wait for a stream to open before the store is looked at all the same.
const OPENING: Duration = Duration::from_millis(100);

/// Waits for something to happen: an event where the store has events, else the end of a poll interval
/// (clause F3).
pub(crate) struct Wake {
    backend: Arc<dyn Backend>,
    watch: Watch,
    source: Source,
}

/// Where the events come from.
enum Source {
    /// Nowhere, until then.
    Closed(Instant),
    /// A stream that is being opened, which a store that is slow or down may take its time for.
    Opening(BoxFuture<'static, Result<BoxStream<'static, Event>>>),
    /// This stream.
    Open(BoxStream<'static, Event>),
}

impl Wake {
    /// Hears of these queues, or of all.
    pub(crate) fn new(backend: Arc<dyn Backend>, queues: Option<Vec<QueueName>>) -> Self {
        Self::of(backend, Watch { queues, logs: false })
    }

    /// Hears what is asked for.
    pub(crate) fn of(backend: Arc<dyn Backend>, watch: Watch) -> Self {
        Self { backend, watch, source: Source::Closed(Instant::now()) }
    }

    /// Opens the stream if it is not open. To be called before the store is looked at, so that what happens
    /// between the look and the wait is heard; what was heard before the look is forgotten.
    pub(crate) async fn listen(&mut self) {
        if matches!(self.source, Source::Closed(until) if until <= Instant::now()) {
            let (backend, watch) = (self.backend.clone(), self.watch.clone());
            let opening = async move { backend.watch(Deadline::default(), watch).await };
            self.source = Source::Opening(opening.boxed());
        }
        if let Source::Opening(_) = self.source {
            let _ = tokio::time::timeout(OPENING, self.opened()).await;
        }
        if let Source::Open(stream) = &mut self.source {
            while let Some(event) = stream.next().now_or_never() {
                if event.is_none() {
                    self.source = Source::Closed(Instant::now() + REOPEN);
                    return;
                }
            }
        }
    }

    /// Waits for an event that `wanted` accepts, at most for `poll`.
    pub(crate) async fn wait(&mut self, poll: Duration, wanted: impl Fn(&Event) -> bool) {
        let _ = tokio::time::timeout(poll, self.heard(wanted)).await;
    }

    async fn heard(&mut self, wanted: impl Fn(&Event) -> bool) {
        loop {
            match &mut self.source {
                Source::Closed(_) => std::future::pending().await,
                Source::Opening(_) => {
                    self.opened().await;
                    // What happened before it was open was not heard.
                    if let Source::Open(_) = self.source {
                        return;
                    }
                }
                Source::Open(stream) => match stream.next().await {
                    Some(event) if wanted(&event) || event == Event::Gap => return,
                    Some(_) => {}
                    None => self.source = Source::Closed(Instant::now() + REOPEN),
                },
            }
        }
    }

    /// Waits until the stream that is being opened is open, or cannot be opened.
    async fn opened(&mut self) {
        let Source::Opening(opening) = &mut self.source else { return };
        self.source = match opening.await {
            Ok(stream) => Source::Open(stream),
            Err(error) => {
                tracing::debug!(%error, "no events; polling instead");
                Source::Closed(Instant::now() + REOPEN)
            }
        };
    }
}

/// `poll` give or take a fifth, so that many who wait do not ask together; never so short that they do nothing
/// else.
pub(crate) fn jittered(poll: Duration) -> Duration {
    poll.clamp(SHORTEST, limits::SPAN).mul_f64(0.8 + 0.4 * fastrand::f64())
}
