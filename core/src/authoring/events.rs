//! Streams of events (clause F3).

use futures::StreamExt;
use futures::stream::{BoxStream, Stream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::backend::{Event, Watch};

/// What is sent from here on: a gap for a reader that fell behind, and no more once nobody can send.
pub fn heard(events: broadcast::Receiver<Event>) -> BoxStream<'static, Event> {
    // The one error there is says that this reader fell behind.
    BroadcastStream::new(events).map(|event| event.unwrap_or(Event::Gap)).boxed()
}

/// Of these events what was asked for.
pub fn wanted(
    events: impl Stream<Item = Event> + Send + 'static,
    request: Watch,
) -> BoxStream<'static, Event> {
    events.filter(move |event| std::future::ready(request.wants(event))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_fell_behind_is_told_of_a_gap_and_nobody_of_what_he_did_not_ask_for() {
        let (sender, events) = broadcast::channel(2);
        let waiting = |queue: &str| Event::Waiting { queue: queue.parse().unwrap() };
        let request = Watch { queues: Some(vec!["a".parse().unwrap()]), ..Watch::default() };
        let stream = wanted(heard(events), request);
        for queue in ["a", "b", "a"] {
            sender.send(waiting(queue)).unwrap();
        }
        drop(sender);
        assert_eq!(stream.collect::<Vec<_>>().await, [Event::Gap, waiting("a")]);
    }
}
