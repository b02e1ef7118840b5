//! Which jobs: the flags that filter, and what they mean.

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use leasehold::backend::Filter;
use leasehold::{JobId, Kind, QueueName, Reason, State, Store, Tag, Timestamp, WorkerId};
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// Which jobs. What is said several times is any of these, but for tags, of which a job must have all.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which jobs")]
pub(crate) struct Selection {
    /// Of this queue, or of all under it: main or main/
    #[arg(short, long, value_name = "QUEUE")]
    pub(crate) queue: Vec<QueueName>,
    /// In this state: scheduled, queued, running, succeeded, failed, cancelled
    #[arg(short, long, value_name = "STATE")]
    pub(crate) state: Vec<State>,
    /// For this reason, as lease_expired
    #[arg(long, value_name = "REASON", value_parser = named::<Reason>)]
    pub(crate) reason: Vec<Reason>,
    /// Of this kind
    #[arg(short, long, value_name = "KIND")]
    pub(crate) kind: Vec<Kind>,
    /// With this tag
    #[arg(short, long, value_name = "TAG")]
    pub(crate) tag: Vec<Tag>,
    /// Whose latest failure is of this class
    #[arg(long, value_name = "CLASS")]
    pub(crate) error: Option<String>,
    /// With this text in the payload, letter by letter
    #[arg(long, value_name = "TEXT")]
    pub(crate) contains: Option<String>,
    /// Run by this worker, now or last
    #[arg(long, value_name = "ID")]
    pub(crate) worker: Option<WorkerId>,
    /// Enqueued since then: 2h (ago), 2026-05-04, 2026-05-04T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Enqueued until then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
}

/// A moment, or how long before now it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    /// Before this hour, by the store's clock.
    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now.minus(span),
        }
    }

    /// After this hour.
    pub(crate) fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now.plus(span),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = humantime::parse_duration(text) {
            return Ok(Self::Ago(span));
        }
        let day = format!("{text}T00:00:00Z");
        let at = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339_weak(&day));
        let at = at.map_err(|_| "this is neither a span as 2h nor a time as 2026-05-04T12:00:00Z (UTC)")?;
        let since = at.duration_since(UNIX_EPOCH).map_err(|_| "this is before 1970")?;
        i64::try_from(since.as_millis())
            .map(|millis| Self::At(Timestamp::from_millis(millis)))
            .map_err(|_| "this is too far away".to_owned())
    }
}

/// Reads the word of an enumeration.
pub(crate) fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // serde says which words there are.
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

impl Selection {
    /// Whether it names no property at all, and so means every job.
    pub(crate) fn is_everything(&self) -> bool {
        self.said(Timestamp::default()) == Filter::default()
    }

    /// What it means in this store now: spans are counted from its hour, and a root means the queues under it.
    pub(crate) async fn filter(&self, store: &Store) -> Result<Filter, Failure> {
        let mut filter = self.said(store.now().await?);
        if let Some(queues) = filter.queues.as_mut().filter(|queues| queues.iter().any(QueueName::is_root)) {
            let known = store.queues().await?.into_iter().map(|record| record.queue);
            let under: Vec<_> = known.filter(|queue| queues.iter().any(|named| named.means(queue))).collect();
            queues.extend(under);
            queues.sort_unstable();
            queues.dedup();
        }
        Ok(filter)
    }

    fn said(&self, now: Timestamp) -> Filter {
        fn some<T: Clone>(items: &[T]) -> Option<Vec<T>> {
            (!items.is_empty()).then(|| items.to_vec())
        }
        let mut filter = Filter::default();
        filter.queues = some(&self.queue);
        filter.states = some(&self.state);
        filter.reasons = some(&self.reason);
        filter.kinds = some(&self.kind);
        filter.tags = some(&self.tag);
        filter.worker = self.worker;
        filter.error_class.clone_from(&self.error);
        filter.payload_contains.clone_from(&self.contains);
        filter.enqueued_from = self.since.map(|since| since.before(now));
        filter.enqueued_until = self.until.map(|until| until.before(now));
        filter
    }
}

/// Jobs by id, or by their properties.
#[derive(Debug, Clone, Args)]
pub(crate) struct Targets {
    /// These jobs
    #[arg(value_name = "ID", conflicts_with = "Selection")]
    pub(crate) ids: Vec<JobId>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// All jobs there are; none of the flags above
    #[arg(long, conflicts_with_all = ["ids", "Selection"])]
    pub(crate) all: bool,
}

impl Targets {
    /// Refuses to mean every job by saying nothing.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let nothing = self.ids.is_empty() && self.selection.is_everything();
        if nothing && !self.all {
            return Err(Failure::usage(
                "which jobs? Name ids, say which by --queue, --state and the like, or --all",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spans_or_times() {
        let at = |millis| Ok(Moment::At(Timestamp::from_millis(millis)));
        assert_eq!("2h".parse(), Ok(Moment::Ago(Duration::from_hours(2))));
        assert_eq!("1970-01-02".parse(), at(86_400_000));
        assert_eq!("1970-01-01T00:00:01Z".parse(), at(1_000));
        for wrong in ["", "yesterday", "2026-13-01", "1969-01-01"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
