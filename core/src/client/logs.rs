use std::time::Duration;

use futures::Stream;

use super::store::Store;
use super::wake::{Wake, jittered};
use crate::backend::{Event, LogPage, LogSource, ReadLogs, Watch};
use crate::error::Result;

/// Lines read in one call while following.
const PAGE: usize = 500;
/// How often new lines are looked for where no event tells of them.
const POLL: Duration = Duration::from_millis(500);

impl Store {
    /// Some lines of a job's or a worker's log after a sequence, oldest first; 0 for all.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn logs(&self, source: LogSource, after: u64, limit: usize) -> Result<LogPage> {
        self.backend().read_logs(self.deadline(), ReadLogs { source, after, limit }).await
    }

    /// Follows a log from after a sequence: pages of lines as they come, for ever. A page whose `gap` is set
    /// comes after lines that fell to the cap before they were read (clause L3). After an error it goes on.
    pub fn follow(
        &self,
        source: LogSource,
        after: u64,
    ) -> impl Stream<Item = Result<LogPage>> + Send + 'static {
        struct Follow {
            store: Store,
            wake: Wake,
            after: u64,
            failed: bool,
        }
        let of_source = move |event: &Event| match (event, source) {
            (Event::Logged { job, .. }, LogSource::Job(wanted)) => *job == wanted,
            (Event::Logged { .. }, LogSource::Worker(_)) => true,
            _ => false,
        };
        let wake = Wake::of(self.backend().clone(), Watch { queues: None, logs: true });
        let start = Follow { store: self.clone(), wake, after, failed: false };
        futures::stream::unfold(start, move |mut follow| async move {
            if follow.failed {
                tokio::time::sleep(jittered(POLL)).await;
            }
            loop {
                follow.wake.listen().await;
                let most = PAGE.min(follow.store.limits().page);
                let page = match follow.store.logs(source, follow.after, most).await {
                    Ok(page) => page,
                    Err(error) => {
                        follow.failed = true;
                        return Some((Err(error), follow));
                    }
                };
                follow.failed = false;
                if let Some(last) = page.lines.last() {
                    follow.after = last.sequence;
                    return Some((Ok(page), follow));
                }
                follow.wake.wait(jittered(POLL), of_source).await;
            }
        })
    }
}
