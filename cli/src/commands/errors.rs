use std::collections::BTreeMap;

use clap::Args;
use futures::TryStreamExt;
use leasehold::backend::{Filter, Order};
use leasehold::{JobId, Kind, State, Timestamp};
use serde::Serialize;

use super::Context;
use crate::failure::Failure;
use crate::output::say;
use crate::selection::Selection;
use crate::words::{cut, relative, thousands};

/// Groups failures by kind and class of error, the most frequent first.
///
/// Of each job counts the latest failure: of those that have failed, and of those that are tried again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold errors --since 1day\n  leasehold errors --queue mail --state failed"
)]
pub(crate) struct Errors {
    #[command(flatten)]
    selection: Selection,
    /// Look at so many jobs at most, the newest
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    sample: usize,
}

/// Failures of one kind and class.
#[derive(Debug, Serialize)]
struct Group {
    kind: Kind,
    class: String,
    count: u64,
    /// How many of these jobs have failed for good.
    failed: u64,
    newest: Timestamp,
    example: JobId,
    message: String,
}

pub(crate) async fn run(command: Errors, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    let now = store.now().await?;
    let mut filter: Filter = command.selection.filter(&store).await?;
    if filter.states.is_none() {
        filter.states = Some(vec![State::Failed, State::Scheduled, State::Queued, State::Running]);
    }
    let mut groups: BTreeMap<(Kind, String), Group> = BTreeMap::new();
    let mut jobs = std::pin::pin!(store.list_all(filter, Order::NewestFirst));
    let mut seen = 0;
    while seen < command.sample
        && let Some(job) = jobs.try_next().await?
    {
        seen += 1;
        let Some(failure) = job.last_failure() else { continue };
        let group = groups.entry((job.kind.clone(), failure.class.clone())).or_insert_with(|| Group {
            kind: job.kind.clone(),
            class: failure.class.clone(),
            count: 0,
            failed: 0,
            newest: failure.at,
            example: job.id,
            message: failure.message.clone(),
        });
        group.count += 1;
        group.failed += u64::from(job.state == State::Failed);
        if failure.at > group.newest {
            (group.newest, group.example, group.message) = (failure.at, job.id, failure.message.clone());
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let columns = ["kind", "error", "jobs", "failed", "newest", "example", "message"];
    context.output.list(&groups, &columns, "no job has failed", |group| {
        vec![
            group.kind.to_string(),
            group.class.clone(),
            thousands(group.count),
            thousands(group.failed),
            relative(group.newest, now),
            group.example.to_string(),
            cut(&group.message, 60),
        ]
    })?;
    if seen == command.sample {
        say(&format!(
            "only the newest {} jobs were looked at; --sample looks at more",
            thousands(seen as u64)
        ));
    }
    Ok(())
}
