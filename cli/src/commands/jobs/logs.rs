use clap::Args;
use futures::StreamExt;
use leasehold::backend::{LogPage, LogSource};
use leasehold::{JobId, Store};

use super::missing;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::say;
use crate::words::moment;

/// Prints the log of a job.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold jobs logs 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d\n  leasehold jobs logs --follow 01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d"
)]
pub(crate) struct Logs {
    /// Whose
    id: JobId,
    /// Go on with what comes, until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// Only lines after this one
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,
}

pub(crate) async fn run(command: Logs, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    if store.find(command.id).await?.is_none() {
        return Err(missing(command.id));
    }
    let source = LogSource::Job(command.id);
    let mut after = command.after;
    if command.follow {
        after = follow(&store, context, command.id, after).await?;
    }
    // What there is, or what came while it was noticed that the job had ended.
    print_rest(&store, context, source, after).await.map(drop)
}

/// Prints lines as they come, until the job has ended; tells after which line it stopped.
async fn follow(store: &Store, context: &Context, id: JobId, mut after: u64) -> Result<u64, Failure> {
    let mut lines = std::pin::pin!(store.follow(LogSource::Job(id), after));
    let ended = async {
        loop {
            match store.wait(id, std::time::Duration::from_mins(1)).await {
                Ok(job) if !job.state.is_terminal() => {}
                ended => return ended,
            }
        }
    };
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            ended = &mut ended => {
                ended?;
                return Ok(after);
            }
            page = lines.next() => match page {
                Some(Ok(page)) => after = print(context, LogSource::Job(id), &page)?.unwrap_or(after),
                Some(Err(error)) => say(&format!("{error}; going on")),
                None => return Ok(after),
            },
        }
    }
}

/// Prints all that is there of a log after a line; tells the last one.
pub(crate) async fn print_rest(
    store: &Store,
    context: &Context,
    source: LogSource,
    mut after: u64,
) -> Result<u64, Failure> {
    loop {
        let page = store.logs(source, after, store.limits().page).await?;
        match print(context, source, &page)? {
            Some(last) => after = last,
            None => return Ok(after),
        }
    }
}

/// Prints a page of lines, in a worker's log each with its job; tells the last one.
pub(crate) fn print(context: &Context, source: LogSource, page: &LogPage) -> Result<Option<u64>, Failure> {
    if page.gap {
        say("… lines are gone that were written before these");
    }
    for line in &page.lines {
        let job = match source {
            LogSource::Job(_) => String::new(),
            LogSource::Worker(_) => format!("{} ", line.job),
        };
        let text = format!("{} {job}{:5} {}", moment(line.at), line.level.to_string(), line.message);
        context.output.line(line, &text)?;
    }
    Ok(page.lines.last().map(|line| line.sequence))
}
