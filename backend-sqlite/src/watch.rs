//! Streams events: see `Backend::watch`.

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use leasehold_core::backend::{Event, Watch};
use leasehold_core::{Deadline, Result};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout_at;

use crate::writer::{Writer, late};

pub(crate) async fn watch(
    writer: &Writer,
    deadline: Deadline,
    request: Watch,
) -> Result<BoxStream<'static, Event>> {
    let events = timeout_at(deadline.instant(), writer.watch()).await.map_err(|_| late())??;
    let events = unfold(events, next);
    Ok(events.filter(move |event| std::future::ready(request.wants(event))).boxed())
}

/// The next event; a gap for a reader that fell behind; nothing once the writer has ended.
async fn next(mut events: Receiver<Event>) -> Option<(Event, Receiver<Event>)> {
    match events.recv().await {
        Ok(event) => Some((event, events)),
        Err(RecvError::Lagged(_)) => Some((Event::Gap, events)),
        Err(RecvError::Closed) => None,
    }
}
