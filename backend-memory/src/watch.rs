use futures::StreamExt;
use futures::stream::BoxStream;
use leasehold_core::backend::{Event, Watch};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Opens a stream of what is told from here on. It ends when the store is dropped.
pub(crate) fn watch(events: &broadcast::Sender<Event>, request: Watch) -> BoxStream<'static, Event> {
    BroadcastStream::new(events.subscribe())
        // The one error there is says that this reader fell behind.
        .map(|event| event.unwrap_or(Event::Gap))
        .filter(move |event| futures::future::ready(request.wants(event)))
        .boxed()
}
