use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use memory_stats::memory_stats;
use tokio_util::sync::CancellationToken;

use super::run::EndedBy;
use super::shared::Shared;

/// How often the memory of the process is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Ends the worker when it has worked long enough, or its process has grown too large, until `done`.
pub(super) async fn bound(shared: Arc<Shared>, done: CancellationToken) {
    let time_is_over = async {
        match shared.config.max_time {
            Some(time) => tokio::time::sleep(time).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = done.cancelled() => {}
        () = time_is_over => shared.end_by(EndedBy::MaxTime),
        () = too_large(shared.config.max_memory) => shared.end_by(EndedBy::MaxMemory),
    }
}

/// Waits until the process takes more memory than that.
async fn too_large(most: Option<usize>) {
    let Some(most) = most else { return pending().await };
    loop {
        match memory_stats() {
            Some(stats) if stats.physical_mem > most => {
                tracing::warn!(bytes = stats.physical_mem, most, "the process takes too much memory");
                return;
            }
            Some(_) => {}
            None => tracing::warn!("the system does not tell how much memory the process takes"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
