use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use leasehold::backend::TagRule;
use leasehold::worker::{HandlerOptions, Process, QueueChoice, Stopper, Summary};
use leasehold::{QueueName, Tag, Worker};
use serde::Serialize;

use super::Context;
use crate::failure::{FAILED, Failure};
use crate::output::say;
use crate::words::{cut, thousands, word};

/// Runs a program for each job: a worker for any language.
///
/// The program reads the payload from its standard input, and knows its job by LEASEHOLD_JOB_ID and the like. What it prints is
/// the job's log, what it writes to descriptor 3 its result, and its exit code says how it ended: 0 well, 64 and 65 failed for good,
/// 75 to be run again, 79 cancelled, any other an error that is tried again. It is ended with its lease, and killed with all that
/// it started. The first SIGINT or SIGTERM lets what runs finish, the second gives it back.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold work --queue mail --exec ./send.sh\n  leasehold work -q main/ -q rest --choice strict -c 8 --exec python3 handle.py\n  leasehold work --burst --max-time 10m --exec node handle.mjs"
)]
pub(crate) struct Work {
    /// From this queue, or from all under it: main/ [default: default]
    #[arg(short, long, value_name = "QUEUE")]
    queue: Vec<QueueName>,
    /// How it takes from several queues
    #[arg(long, value_enum, default_value_t = Choice::Merged)]
    choice: Choice,
    /// Only jobs of this kind
    #[arg(short, long, value_name = "KIND")]
    kind: Vec<String>,
    /// All kinds but this one
    #[arg(long, value_name = "KIND", conflicts_with = "kind")]
    except: Vec<String>,
    /// Only jobs that have this tag; said several times: all of them
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<Tag>,
    /// How many programs run at once
    #[arg(short, long, value_name = "NUMBER", default_value_t = 1)]
    concurrency: usize,
    /// End when nothing is left to be done
    #[arg(long)]
    burst: bool,
    /// Run one job, and end
    #[arg(long, conflicts_with = "max_jobs")]
    one: bool,
    /// End after so many jobs
    #[arg(long, value_name = "NUMBER")]
    max_jobs: Option<usize>,
    /// End after so long
    #[arg(long, value_name = "TIME")]
    max_time: Option<humantime::Duration>,
    /// End when this process has more memory than so many MiB
    #[arg(long, value_name = "MIB")]
    max_memory: Option<usize>,
    /// End with the first job that fails
    #[arg(long)]
    fail_fast: bool,
    /// Run what has failed once more, and end
    #[arg(long)]
    redo_failed: bool,
    /// How long one attempt may run
    #[arg(long = "run-time", value_name = "TIME")]
    run_time: Option<humantime::Duration>,
    /// How long jobs may go on once it was told to stop
    #[arg(long, value_name = "TIME", default_value = "30s")]
    grace: humantime::Duration,
    /// Fire schedules as well
    #[arg(long)]
    schedules: bool,
    /// What it is called in the list of workers
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    program: Program,
}

/// How a worker takes from several queues.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// As if they were one queue
    Merged,
    /// In the order in which they are named
    Strict,
    /// As many from each
    Parallel,
}

/// The program that runs a job.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The program")]
pub(crate) struct Program {
    /// The program and its arguments; the last of all flags
    #[arg(long, value_name = "PROGRAM", num_args = 1.., required = true, allow_hyphen_values = true)]
    exec: Vec<OsString>,
    /// The folder it runs in
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// A variable of the environment that it is to have as well; may be said several times
    #[arg(long, value_name = "NAME")]
    keep_env: Vec<OsString>,
    /// Its bound of memory, in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Its bound of processor time
    #[arg(long, value_name = "TIME")]
    cpu_time: Option<humantime::Duration>,
    /// How long it may take to end once it was asked to
    #[arg(long, value_name = "TIME", default_value = "10s")]
    kill_after: humantime::Duration,
}

impl Program {
    pub(crate) fn process(&self) -> Result<Process, Failure> {
        let Some((program, arguments)) = self.exec.split_first() else {
            return Err(Failure::usage("which program? --exec is the last flag, with the program behind it"));
        };
        let mut process = Process::new(program).args(arguments).grace(self.kill_after.into());
        if let Some(folder) = &self.folder {
            process = process.current_dir(folder);
        }
        if let Some(mib) = self.memory {
            process = process.memory(mib << 20);
        }
        if let Some(time) = self.cpu_time {
            process = process.cpu_time(time.into());
        }
        Ok(self.keep_env.iter().fold(process, Process::keep_env))
    }
}

/// What a worker did.
#[derive(Debug, Serialize)]
struct Told {
    ended_by: String,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    retried: u64,
    released: u64,
    lost: u64,
}

pub(crate) async fn run(command: Work, context: &Context) -> Result<(), Failure> {
    let store = context.new_store().await?;
    let process = command.program.process()?;
    let queues = if command.queue.is_empty() { vec![QueueName::default()] } else { command.queue.clone() };
    let mut worker = Worker::builder(&store).concurrency(command.concurrency).grace(command.grace.into());
    worker = queues.iter().cloned().fold(worker, leasehold::worker::WorkerBuilder::queue);
    worker = worker.queue_choice(match command.choice {
        Choice::Merged => QueueChoice::Merged,
        Choice::Strict => QueueChoice::Strict,
        Choice::Parallel => QueueChoice::Parallel,
    });
    let options = HandlerOptions::default();
    let options = command.run_time.map_or(options.clone(), |time| options.timeout(time.into()));
    worker = worker.handle_other(options, process);
    if !command.kind.is_empty() {
        worker = worker.only_kinds(command.kind.iter().map(String::as_str));
    }
    if !command.except.is_empty() {
        worker = worker.except_kinds(command.except.iter().map(String::as_str));
    }
    if !command.tag.is_empty() {
        worker = worker.tags(TagRule::JobHasAll(command.tag.iter().cloned().collect::<BTreeSet<_>>()));
    }
    worker = bounded(worker, &command);
    if let Some(name) = &command.name {
        worker = worker.name(name);
    }
    if command.schedules {
        worker = worker.schedules();
    }
    worker = worker.on_failure(|job, failure| {
        let why = cut(&format!("{}: {}", failure.class, failure.message), 200);
        say(&format!("{} attempt {}: {} ({why})", job.id, job.attempt, word(&failure.reason)));
    });
    let worker = worker.build()?;
    let names: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
    say(&format!("worker {} takes jobs from {}", worker.id(), names.join(", ")));
    let summary = until_ended(worker).await?;
    tell(context, &summary)?;
    if command.fail_fast && summary.failed > 0 { Err(Failure::said(FAILED)) } else { Ok(()) }
}

fn bounded(mut worker: leasehold::worker::WorkerBuilder, command: &Work) -> leasehold::worker::WorkerBuilder {
    if command.burst || command.one {
        worker = worker.until_idle();
    }
    if let Some(jobs) = command.max_jobs.or(command.one.then_some(1)) {
        worker = worker.max_jobs(jobs);
    }
    if let Some(time) = command.max_time {
        worker = worker.max_time(time.into());
    }
    if let Some(mib) = command.max_memory {
        worker = worker.max_memory(mib << 20);
    }
    if command.fail_fast {
        worker = worker.fail_fast();
    }
    if command.redo_failed {
        worker = worker.redo_failed();
    }
    worker
}

fn tell(context: &Context, summary: &Summary) -> Result<(), Failure> {
    let Summary { succeeded, failed, cancelled, retried, released, lost, .. } = *summary;
    let ended_by = format!("{:?}", summary.ended_by);
    let told = Told { ended_by, succeeded, failed, cancelled, retried, released, lost };
    let mut text = format!("{} succeeded, {} failed", thousands(succeeded), thousands(failed));
    for (number, what) in
        [(cancelled, "cancelled"), (retried, "to be tried again"), (released, "given back"), (lost, "lost")]
    {
        if number > 0 {
            text = format!("{text}, {} {what}", thousands(number));
        }
    }
    context.output.line(&told, &text)
}

/// Runs a worker until it has ended, which a signal makes it do: the first lets what runs finish, the second gives it back.
pub(crate) async fn until_ended(worker: Worker) -> Result<Summary, Failure> {
    let stopper = worker.stopper();
    let mut ended = std::pin::pin!(worker.start().join());
    let mut signals = Signals::listen()?;
    let mut asked = 0;
    loop {
        tokio::select! {
            summary = &mut ended => return Ok(summary?),
            () = signals.next() => {
                asked += 1;
                stop(&stopper, asked);
            }
        }
    }
}

fn stop(stopper: &Stopper, asked: u32) {
    if asked == 1 {
        say("stopping when what runs has ended; once more to give it back");
        stopper.stop();
    } else {
        say("giving back what runs");
        stopper.interrupt();
    }
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
