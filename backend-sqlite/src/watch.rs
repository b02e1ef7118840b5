//! Streams events: see `Backend::watch`.

use futures::stream::BoxStream;
use leasehold_core::authoring::calls::late;
use leasehold_core::authoring::events::{heard, wanted};
use leasehold_core::backend::{Event, Watch};
use leasehold_core::{Deadline, Result};
use tokio::time::timeout_at;

use crate::writer::Writer;

pub(crate) async fn watch(
    writer: &Writer,
    deadline: Deadline,
    request: Watch,
) -> Result<BoxStream<'static, Event>> {
    let events = timeout_at(deadline.instant(), writer.watch()).await.map_err(|_| late())??;
    Ok(wanted(heard(events), request))
}
