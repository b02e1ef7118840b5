//! A live view of the whole screen, to look and to act in: `model` is what is shown and what a key does, `view` how it is drawn.

mod model;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt;
use leasehold::Store;
use leasehold::backend::Filter;

use self::model::{Act, Model, Seen};
use super::Context;
use crate::failure::Failure;

/// How many jobs and workers are shown.
const ROWS: usize = 200;

/// Shows queues, jobs and workers as they change, on the whole screen, and acts on them.
///
/// Tab changes the pane, the arrows the row. In queues: p pauses and resumes. In jobs: c cancels, r requeues, w tells why a job does not
/// run. In workers: s asks one to stop. f changes which jobs are shown, q ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold top\n  leasehold top --every 5s")]
pub(crate) struct Top {
    /// How often it looks
    #[arg(long, value_name = "TIME", default_value = "1s")]
    every: humantime::Duration,
}

pub(crate) async fn run(command: Top, context: &Context) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; `leasehold stats --watch` and `queues list` do not",
        ));
    }
    let store = context.store().await?;
    let mut model = Model::default();
    model.see(look(&store, &model).await?);
    let mut terminal = ratatui::try_init()?;
    let done = show(&store, &mut model, &mut terminal, command.every.into()).await;
    ratatui::restore();
    done
}

async fn show(
    store: &Store,
    model: &mut Model,
    terminal: &mut ratatui::DefaultTerminal,
    every: Duration,
) -> Result<(), Failure> {
    let mut keys = EventStream::new();
    let mut ticks = tokio::time::interval(every);
    loop {
        terminal.draw(|frame| view::draw(frame, model))?;
        let act = tokio::select! {
            _ = ticks.tick() => Act::Look,
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => model.key(key.code),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        };
        match act {
            Act::Quit => return Ok(()),
            Act::Nothing => {}
            Act::Look => match look(store, model).await {
                Ok(seen) => model.see(seen),
                Err(error) => model.say(error.to_string()),
            },
            act => {
                let said = match do_it(store, act).await {
                    Ok(said) => said,
                    Err(error) => error.to_string(),
                };
                model.say(said);
                ticks.reset_immediately();
            }
        }
    }
}

async fn look(store: &Store, model: &Model) -> leasehold::Result<Seen> {
    let mut filter = Filter::default();
    filter.states = model.states();
    let jobs = store.list(filter, None, ROWS.min(store.limits().page)).await?.jobs;
    let workers = store.workers(None, ROWS.min(store.limits().page)).await?;
    Ok(Seen {
        now: store.now().await?,
        counts: store.counts().await?,
        queues: store.queues().await?,
        jobs,
        workers,
    })
}

/// Does what a key asked for, and says what became of it.
async fn do_it(store: &Store, act: Act) -> leasehold::Result<String> {
    Ok(match act {
        Act::Pause(queue) => {
            store.queue(queue.clone())?.pause("leasehold top", "").await?;
            format!("{queue} is paused")
        }
        Act::Resume(queue) => {
            store.queue(queue.clone())?.resume().await?;
            format!("{queue} goes on")
        }
        Act::Cancel(job) => format!("cancel {job}: {:?}", store.cancel(job).await?),
        Act::Requeue(job) => format!("requeue {job}: {:?}", store.requeue(job).await?),
        Act::Why(job) => store.why(job).await?.first().map_or_else(String::new, ToString::to_string),
        Act::Stop(worker) => {
            store.stop_workers(leasehold::backend::StopWorkers::One(worker)).await?;
            format!("{worker} is asked to stop")
        }
        Act::Quit | Act::Nothing | Act::Look => String::new(),
    })
}
