use std::io::Write;

use clap::Args;
use futures::TryStreamExt;
use leasehold::backend::Cursor;

use crate::commands::Context;
use crate::failure::Failure;
use crate::jobs::{COLUMNS, row};
use crate::output::{Format, say, stdout};
use crate::selection::Selection;

/// Lists jobs, the newest first.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs list --state failed --since 1day\n  leasehold jobs list --queue main/ --contains '\"user\":42'\n  leasehold -o jsonl jobs list --all | jq .id"
)]
pub(crate) struct List {
    #[command(flatten)]
    selection: Selection,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// All that match, however many; a line each with -o jsonl
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on after this place, which the page before told
    #[arg(long, value_name = "CURSOR", conflicts_with = "all")]
    after: Option<String>,
}

pub(crate) async fn run(command: List, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    let now = store.now().await?;
    let filter = command.selection.filter(&store).await?;
    if command.all && context.output.format == Format::Jsonl {
        // As they come, so that a million of them take no memory.
        let mut jobs = std::pin::pin!(store.list_all(filter, leasehold::backend::Order::NewestFirst));
        let mut out = stdout();
        while let Some(job) = jobs.try_next().await? {
            serde_json::to_writer(&mut out, &job)?;
            writeln!(out)?;
        }
        return Ok(out.flush()?);
    }
    let (mut jobs, mut after) = (Vec::new(), command.after.map(Cursor));
    let most = if command.all { usize::MAX } else { command.limit };
    loop {
        let limit = store.limits().page.min(most - jobs.len());
        let page = store.list(filter.clone(), after.take(), limit).await?;
        for aside in &page.unreadable {
            let which = aside.job.map_or_else(String::new, |job| format!("{job}: "));
            say(&format!("{which}{}", aside.why));
        }
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() || jobs.len() >= most {
            break;
        }
    }
    context.output.list(&jobs, &COLUMNS, "no job matches", |job| row(job, now))?;
    if let Some(Cursor(after)) = after {
        say(&format!("there are more: --after {after}"));
    }
    Ok(())
}
