use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;

use crate::backend::{Backend, Event, Watch};
use crate::name::QueueName;
use crate::time::Deadline;

/// How soon a stream of events that broke or could not be opened is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Waits for something to happen: an event where the store has events, else the end of a poll interval
/// (clause F3).
pub(crate) struct Wake {
    backend: Arc<dyn Backend>,
    queues: Option<Vec<QueueName>>,
    stream: Option<BoxStream<'static, Event>>,
    reopen_at: Instant,
}

impl Wake {
    /// Hears of these queues, or of all.
    pub(crate) fn new(backend: Arc<dyn Backend>, queues: Option<Vec<QueueName>>) -> Self {
        Self { backend, queues, stream: None, reopen_at: Instant::now() }
    }

    /// Opens the stream if it is not open. To be called before the store is looked at, so that what happens
    /// between the look and the wait is heard.
    pub(crate) async fn listen(&mut self) {
        if self.stream.is_some() || Instant::now() < self.reopen_at {
            return;
        }
        let request = Watch { queues: self.queues.clone() };
        match self.backend.watch(Deadline::default(), request).await {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                tracing::debug!(%error, "no events; polling instead");
                self.reopen_at = Instant::now() + REOPEN;
            }
        }
    }

    /// Waits for an event that `wanted` accepts, at most for `poll`.
    pub(crate) async fn wait(&mut self, poll: Duration, wanted: impl Fn(&Event) -> bool) {
        let until = Instant::now() + poll;
        while let Some(stream) = &mut self.stream {
            match tokio::time::timeout_at(until, stream.next()).await {
                Ok(Some(event)) if wanted(&event) || event == Event::Gap => return,
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.stream = None;
                    self.reopen_at = Instant::now() + REOPEN;
                }
                Err(_) => return,
            }
        }
        tokio::time::sleep_until(until).await;
    }
}

/// `poll` give or take a fifth, so that many who wait do not ask together.
pub(crate) fn jittered(poll: Duration) -> Duration {
    poll.mul_f64(0.8 + 0.4 * fastrand::f64())
}
