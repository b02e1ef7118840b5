use std::time::Duration;

use clap::Args;
use leasehold::worker::{HandlerOptions, Json};
use leasehold::{Attempt, QueueName, Worker};

use super::Context;
use super::work::until_ended;
use crate::failure::Failure;
use crate::jobs::text;
use crate::output::say;
use crate::words::cut;

/// Starts a worker and a scheduler that say what they are given, to try things.
///
/// Jobs of every kind are taken from every queue and succeed with their payload as the result. A payload of "fail" fails.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold --url sqlite:dev.db dev\n  leasehold --url sqlite:dev.db jobs enqueue hello '\"world\"'   # in another terminal"
)]
pub(crate) struct Dev {
    /// End when nothing is left to be done
    #[arg(long)]
    burst: bool,
    /// How long each job takes
    #[arg(long, value_name = "TIME", default_value = "0s")]
    takes: humantime::Duration,
    /// Only from this queue, or all under it [default: every queue there is now]
    #[arg(short, long, value_name = "QUEUE")]
    queue: Vec<QueueName>,
}

pub(crate) async fn run(command: Dev, context: &Context) -> Result<(), Failure> {
    let store = context.new_store().await?;
    let mut queues = command.queue;
    if queues.is_empty() {
        queues = store.counts().await?.into_iter().map(|counts| counts.queue).collect();
        queues.push(QueueName::default());
        queues.sort();
        queues.dedup();
    }
    let takes: Duration = command.takes.into();
    let handler = move |attempt: Attempt| async move {
        let job = attempt.job();
        let payload = text(job.payload.as_bytes());
        say(&format!(
            "{} {} {} attempt {}: {}",
            job.id,
            job.queue,
            job.kind,
            attempt.number(),
            cut(&payload, 200)
        ));
        tokio::time::sleep(takes).await;
        if payload.trim_matches('"') == "fail" {
            return Err("as it was told to");
        }
        Ok(Json(payload))
    };
    let names: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
    say(&format!("taking jobs of every kind from {}; ctrl-c ends", names.join(", ")));
    let worker = Worker::builder(&store).name("dev").concurrency(4).schedules();
    let mut worker = queues.iter().cloned().fold(worker, leasehold::worker::WorkerBuilder::queue);
    if command.burst {
        worker = worker.until_idle();
    }
    let worker = worker.handle_other(HandlerOptions::default(), handler).build()?;
    until_ended(worker).await.map(drop)
}
