use futures::stream::BoxStream;
use leasehold_core::authoring::events::{heard, wanted};
use leasehold_core::backend::{Event, Watch};
use tokio::sync::broadcast;

/// Opens a stream of what is told from here on. It ends when the store is dropped.
pub(crate) fn watch(events: &broadcast::Sender<Event>, request: Watch) -> BoxStream<'static, Event> {
    wanted(heard(events.subscribe()), request)
}
