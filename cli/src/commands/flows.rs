use clap::{Args, Subcommand};
use leasehold::flow::{FlowRecord, FlowState, NamedFlow};
use leasehold::{FlowId, Store};
use serde::Serialize;

use super::Context;
use crate::bulk::confirm;
use crate::failure::{FAILED, Failure};
use crate::output::say;
use crate::words::{moment_or, relative, thousands};

/// Flows: jobs that wait for jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum Flows {
    List(List),
    Show(Show),
    /// Enqueues a flow from a JSON file, or from the standard input.
    #[command(
        after_help = "Examples:\n  leasehold flows enqueue import.json\n  leasehold flows enqueue - < import.json"
    )]
    Enqueue {
        /// Names jobs and what they wait for; see the guide on flows
        file: std::path::PathBuf,
    },
    /// Waits until a flow has ended; ends with 1 unless it succeeded.
    #[command(
        after_help = "Examples:\n  leasehold flows wait 01970a3c-6a7b-7c1e-9f00-000000000000 --for 10m"
    )]
    Wait {
        /// Which
        id: FlowId,
        /// For how long at most
        #[arg(long = "for", value_name = "TIME", default_value = "1h")]
        at_most: humantime::Duration,
    },
    /// Cancels a flow and all its jobs.
    #[command(after_help = "Examples:\n  leasehold flows cancel 01970a3c-6a7b-7c1e-9f00-000000000000 --yes")]
    Cancel {
        /// Which
        id: FlowId,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Sends round again what did not succeed of a flow that has ended.
    #[command(after_help = "Examples:\n  leasehold flows retry 01970a3c-6a7b-7c1e-9f00-000000000000")]
    Retry {
        /// Which
        id: FlowId,
    },
    /// Deletes a flow that has ended, and its jobs.
    #[command(after_help = "Examples:\n  leasehold flows delete 01970a3c-6a7b-7c1e-9f00-000000000000 --yes")]
    Delete {
        /// Which
        id: FlowId,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Lists the flows, in the order in which they were made.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold flows list")]
pub(crate) struct List {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Those after this one
    #[arg(long, value_name = "ID")]
    after: Option<FlowId>,
}

/// Shows a flow and its first jobs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold flows show 01970a3c-6a7b-7c1e-9f00-000000000000 --from 100")]
pub(crate) struct Show {
    /// Which
    id: FlowId,
    /// Its jobs from this number on
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u32,
    /// At most so many jobs
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
}

/// A flow as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'f> {
    id: FlowId,
    name: &'f str,
    state: FlowState,
    size: u32,
    counts: leasehold::flow::FlowCounts,
    created_at: leasehold::Timestamp,
    finished_at: Option<leasehold::Timestamp>,
}

impl<'f> Shown<'f> {
    fn of(flow: &'f FlowRecord) -> Self {
        let FlowRecord { id, name, state, size, counts, created_at, finished_at, .. } = flow;
        let (id, state, size, counts) = (*id, *state, *size, *counts);
        Self { id, name, state, size, counts, created_at: *created_at, finished_at: *finished_at }
    }
}

pub(crate) async fn run(command: Flows, context: &Context) -> Result<(), Failure> {
    let store = match command {
        Flows::Enqueue { .. } => context.new_store().await?,
        _ => context.store().await?,
    };
    let flows = store.flows();
    match command {
        Flows::List(command) => list(&store, context, &command).await,
        Flows::Show(command) => show(&store, context, &command).await,
        Flows::Enqueue { file } => enqueue(&store, context, &file).await,
        Flows::Wait { id, at_most } => {
            let flow = flows.wait(id, at_most.into()).await?;
            tell(context, &flow)?;
            if flow.state == FlowState::Succeeded { Ok(()) } else { Err(Failure::said(FAILED)) }
        }
        Flows::Cancel { id, yes } => {
            if !yes {
                confirm(&format!("the flow {id} and all its jobs will be cancelled"))?;
            }
            tell(context, &flows.cancel(id).await?)
        }
        Flows::Retry { id } => tell(context, &flows.retry(id).await?),
        Flows::Delete { id, yes } => {
            if !yes {
                confirm(&format!("the flow {id} and all its jobs will be deleted"))?;
            }
            flows.delete(id).await?;
            say(&format!("the flow {id} is deleted"));
            Ok(())
        }
    }
}

fn tell(context: &Context, flow: &FlowRecord) -> Result<(), Failure> {
    context.output.line(&Shown::of(flow), &format!("{} {}", flow.id, flow.state))
}

async fn enqueue(store: &Store, context: &Context, file: &std::path::Path) -> Result<(), Failure> {
    let cannot = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.display()));
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let named: NamedFlow =
        serde_json::from_str(&text.map_err(|error| cannot(&error))?).map_err(|error| cannot(&error))?;
    let flow = store.flows().enqueue(&named.build()?).await?;
    context.output.line(&flow, &flow.to_string())
}

async fn list(store: &Store, context: &Context, command: &List) -> Result<(), Failure> {
    let now = store.now().await?;
    let found = store.flows().list(command.after, command.limit.min(store.limits().page)).await?;
    let shown: Vec<Shown<'_>> = found.iter().map(Shown::of).collect();
    let columns = ["id", "name", "state", "jobs", "open", "succeeded", "failed", "cancelled", "made"];
    context.output.list(&shown, &columns, "there are no flows", |flow| {
        let number = |number: u32| thousands(u64::from(number));
        vec![
            flow.id.to_string(),
            flow.name.to_owned(),
            flow.state.to_string(),
            number(flow.size),
            number(flow.counts.open),
            number(flow.counts.succeeded),
            number(flow.counts.failed),
            number(flow.counts.cancelled),
            relative(flow.created_at, now),
        ]
    })?;
    if let Some(last) = found.last().filter(|_| found.len() == command.limit) {
        say(&format!("there may be more: --after {}", last.id));
    }
    Ok(())
}

async fn show(store: &Store, context: &Context, command: &Show) -> Result<(), Failure> {
    let now = store.now().await?;
    let missing = || Failure::not_found(format!("there is no flow {}", command.id));
    let flow = store.flows().get(command.id).await?.ok_or_else(missing)?;
    let counts = flow.counts;
    let lines = [
        ("id", flow.id.to_string()),
        ("name", flow.name.clone()),
        ("state", flow.state.to_string()),
        ("jobs", thousands(u64::from(flow.size))),
        (
            "of them",
            format!(
                "{} open, {} succeeded, {} failed, {} cancelled",
                counts.open, counts.succeeded, counts.failed, counts.cancelled
            ),
        ),
        ("made", relative(flow.created_at, now)),
        ("ended", moment_or(flow.finished_at, "not yet")),
    ];
    context.output.one(&Shown::of(&flow), &lines)?;
    if context.output.format != crate::output::Format::Table {
        return Ok(());
    }
    let members = store.flows().members(command.id, command.from, command.limit).await?;
    let members: Vec<_> = members.iter().map(|member| (member.index, member)).collect();
    let columns = ["number", "id", "kind", "state", "waits for"];
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|(index, member)| {
            let (kind, state) = member.job.as_ref().map_or_else(
                || (String::new(), "gone".to_owned()),
                |job| (job.kind.to_string(), crate::jobs::state(job)),
            );
            let of = |span: &std::ops::Range<u32>| match span.end - span.start {
                1 => span.start.to_string(),
                _ => format!("{}-{}", span.start, span.end - 1),
            };
            let parents: Vec<String> = member.parents.iter().map(of).collect();
            vec![index.to_string(), member.id.to_string(), kind, state, parents.join(" ")]
        })
        .collect();
    context.output.list(&rows, &columns, "it has no such jobs", Clone::clone)
}
