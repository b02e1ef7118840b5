use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use leasehold::{JobId, Kind, LimitKey, NewJob, Payload, QueueName, Tag, UniqueKey, UniqueScope};
use serde::Serialize;

use super::lines;
use crate::commands::Context;
use crate::failure::Failure;
use crate::selection::Moment;

/// Enqueues a job, or one for each line of the input.
#[derive(Debug, Args)]
#[command(
    long_about = "Enqueues a job, or one for each line of the input.\n\nWith --lines each line of the file, or of the standard \
                  input, is a JSON object: {\"kind\": \"mail\", \"payload\": {\"to\": \"ann\"}}, and as needed \"id\", \
                  \"queue\", \"priority\", \"delay\", \"run_at\", \"tags\", \"unique\", \"limit\", \"max_attempts\", \
                  \"timeout\", \"headers\". If a KIND is given as well, each line is the payload of one. What the flags say \
                  counts where a line says nothing. A line that cannot be enqueued is named, and the others land. Lines with \
                  an \"id\" may be sent again: a job that is there already is left as it is.",
    after_help = "Examples:\n  leasehold jobs enqueue mail '{\"to\": \"ann\"}' --queue mails --delay 10m\n  leasehold jobs enqueue report - < payload.json\n  leasehold jobs enqueue --lines < jobs.jsonl\n  leasehold jobs enqueue --lines=urls.jsonl fetch"
)]
pub(crate) struct Enqueue {
    /// Which handler is to run it
    #[arg(required_unless_present = "lines")]
    kind: Option<Kind>,
    /// Its arguments, JSON mostly, kept as they are; - for the standard input
    #[arg(conflicts_with = "lines")]
    payload: Option<String>,
    /// A job for each line of this file, or of the standard input
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    lines: Option<Option<PathBuf>>,
    /// Begin with this line
    #[arg(long, value_name = "LINE", requires = "lines", default_value_t = 1)]
    from_line: u64,
    /// Its id, so that sending it again leaves one
    #[arg(long, conflicts_with = "lines")]
    id: Option<JobId>,
    /// Wait with --lines for a store that is away, for so long
    #[arg(long, value_name = "TIME", requires = "lines", default_value = "1m")]
    patience: humantime::Duration,
    #[command(flatten)]
    terms: Terms,
}

/// What a job may be asked to have.
#[derive(Debug, Clone, Args)]
pub(crate) struct Terms {
    /// Where it waits [default: default]
    #[arg(short, long)]
    queue: Option<QueueName>,
    /// Higher runs first
    #[arg(short, long, allow_negative_numbers = true)]
    priority: Option<i16>,
    /// When it may run: 10m (from now) or a time
    #[arg(long, value_name = "TIME")]
    delay: Option<Moment>,
    /// A tag; may be said several times
    #[arg(short, long)]
    tag: Vec<Tag>,
    /// Only one job of this key at a time, until it has ended
    #[arg(long, value_name = "KEY")]
    unique: Option<UniqueKey>,
    /// At most --at-once jobs of this key run at once
    #[arg(long, value_name = "KEY")]
    limit: Option<LimitKey>,
    /// How many jobs of the limit key run at once
    #[arg(long, value_name = "NUMBER", requires = "limit", default_value_t = 1)]
    at_once: u32,
    /// How often it may be tried
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// How long one attempt may run
    #[arg(long = "run-time", value_name = "TIME")]
    run_time: Option<humantime::Duration>,
    /// A header, as NAME=VALUE; may be said several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Terms {
    /// A job on these terms.
    pub(crate) fn apply(&self, mut job: NewJob) -> NewJob {
        if let Some(queue) = &self.queue {
            job = job.queue(queue.clone());
        }
        if let Some(priority) = self.priority {
            job = job.priority(priority);
        }
        job = match self.delay {
            Some(Moment::At(at)) => job.run_at(at),
            Some(Moment::Ago(span)) => job.delay(span),
            None => job,
        };
        job = self.tag.iter().cloned().fold(job, NewJob::tag);
        if let Some(key) = &self.unique {
            job = job.unique(key.clone(), UniqueScope::UntilFinished);
        }
        if let Some(key) = &self.limit {
            job = job.limit(key.clone(), self.at_once);
        }
        if let Some(attempts) = self.max_attempts {
            job = job.max_attempts(attempts);
        }
        if let Some(time) = self.run_time {
            job = job.timeout(time.into());
        }
        self.header.iter().fold(job, |job, (name, value)| job.header(name, value))
    }
}

/// What became of one job.
#[derive(Debug, Serialize)]
struct Told {
    job: JobId,
    outcome: &'static str,
}

pub(crate) async fn run(command: Enqueue, context: &Context) -> Result<(), Failure> {
    if let Some(file) = command.lines {
        let input = lines::Input {
            file,
            kind: command.kind,
            terms: command.terms,
            from: command.from_line,
            patience: command.patience.into(),
        };
        return lines::run(input, context).await;
    }
    let Some(kind) = command.kind else { return Err(Failure::usage("of which kind?")) };
    let payload = match command.payload.as_deref() {
        None => Payload::EMPTY,
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes)?;
            Payload::from(bytes)
        }
        Some(text) => Payload::from(text.to_owned()),
    };
    let mut job = command.terms.apply(NewJob::new(kind, payload));
    if let Some(id) = command.id {
        job = job.id(id);
    }
    let store = context.new_store().await?;
    let done = store.queue(job.queue.clone())?.submit(job).await?;
    let outcome = lines::outcome(&done.answer);
    context.output.line(&Told { job: done.job, outcome }, &done.job.to_string())?;
    if outcome != "created" {
        crate::output::say(&format!("the job {} was there already", done.job));
    }
    Ok(())
}
