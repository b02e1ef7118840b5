//! Jobs from lines of JSON, by the million: as many at a time as one call takes, so that memory does not grow.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use leasehold::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold::{
    Deadline, ErrorKind, JobId, Kind, LimitKey, NewJob, Payload, QueueName, Store, Tag, UniqueKey,
    UniqueScope,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::enqueue::Terms;
use crate::commands::Context;
use crate::failure::{FAILED, Failure, UNREACHABLE};
use crate::output::{say, style};
use crate::selection::Moment;
use crate::words::thousands;

/// How many jobs one call takes.
const BATCH: usize = 1_000;
/// What a line may have beside its payload, in bytes.
const BESIDE: usize = 64 << 10;
/// How many lines that cannot be enqueued are named; the others are counted.
const NAMED: u64 = 20;
/// How long is waited for a store that is away, between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the lines come from, and what holds for all.
pub(crate) struct Input {
    pub(crate) file: Option<PathBuf>,
    /// Of which kind they are, where each line is a payload.
    pub(crate) kind: Option<Kind>,
    pub(crate) terms: Terms,
    /// The first line that is read, from 1.
    pub(crate) from: u64,
    /// For how long a store may be away.
    pub(crate) patience: Duration,
}

/// A line that is an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'l> {
    kind: Kind,
    #[serde(borrow, default)]
    payload: Option<&'l RawValue>,
    id: Option<JobId>,
    queue: Option<QueueName>,
    priority: Option<i16>,
    delay: Option<String>,
    run_at: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    unique: Option<UniqueKey>,
    limit: Option<SaidLimit>,
    max_attempts: Option<u32>,
    timeout: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidLimit {
    key: LimitKey,
    max: u32,
}

/// What became of all lines.
#[derive(Debug, Default, Serialize)]
struct Account {
    lines: u64,
    created: u64,
    /// Those whose id was there already.
    existing: u64,
    /// Those whose unique key another job holds.
    held: u64,
    refused: u64,
    /// All lines before this one were dealt with.
    next_line: u64,
}

/// A line, and the job that it is or why it is none.
type Line = (u64, Result<NewJob, String>);

pub(crate) fn outcome(answer: &EnqueueAnswer) -> &'static str {
    match answer {
        EnqueueAnswer::Created => "created",
        EnqueueAnswer::Existing => "existing",
        EnqueueAnswer::Held => "held",
        EnqueueAnswer::Replaced => "replaced",
        EnqueueAnswer::Refused(_) => "refused",
    }
}

pub(crate) async fn run(input: Input, context: &Context) -> Result<(), Failure> {
    let store = context.new_store().await?;
    let (progress, patience, first) = (bar(), input.patience, input.from);
    let (batches, mut read) = mpsc::channel(2);
    let most = store.limits().payload_bytes + BESIDE;
    let bytes = store.limits().batch_bytes;
    let reader = tokio::task::spawn_blocking(move || read_lines(&input, most, bytes, &batches));
    let mut account = Account { next_line: first, ..Account::default() };
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ended = Ok(());
    while let Some(batch) = read.recv().await {
        if futures::poll!(&mut stop).is_ready() {
            ended = Err(Failure::said(FAILED));
            break;
        }
        let lines = batch.len() as u64;
        let sent = send(&store, batch, &mut account, patience, &progress).await;
        progress.inc(lines);
        if let Err(failure) = sent {
            ended = Err(failure);
            break;
        }
        account.lines += lines;
        account.next_line += lines;
    }
    // A reader that waits for room ends with the channel; one that waits for input ends with the process.
    drop(read);
    progress.finish_and_clear();
    if ended.is_ok() {
        reader.await.map_err(|error| Failure::failed(error.to_string()))??;
    }
    finish(context, &account, ended)
}

fn finish(context: &Context, account: &Account, ended: Result<(), Failure>) -> Result<(), Failure> {
    let mut told =
        format!("{} of {} lines are new jobs", thousands(account.created), thousands(account.lines));
    for (number, what) in [
        (account.existing, "were there already"),
        (account.held, "left to the holder of their unique key"),
        (account.refused, "refused"),
    ] {
        if number > 0 {
            told = format!("{told}, {} {what}", thousands(number));
        }
    }
    context.output.line(account, &told)?;
    if ended.is_err() {
        say(&format!("stopped; go on with --from-line {}", account.next_line));
    }
    ended?;
    if account.refused > 0 { Err(Failure::said(FAILED)) } else { Ok(()) }
}

/// Sends a batch, again while the store is away; jobs keep their ids, so that each is there once.
async fn send(
    store: &Store,
    batch: Vec<Line>,
    account: &mut Account,
    patience: Duration,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let (mut numbers, mut jobs) = (Vec::new(), Vec::new());
    for (number, job) in batch {
        match job {
            Ok(job) => {
                numbers.push(number);
                jobs.push(job);
            }
            Err(why) => refuse(account, progress, number, &why),
        }
    }
    match send_all(store, &jobs, patience, progress).await {
        Ok(answers) => {
            for (number, Enqueued { answer, .. }) in numbers.into_iter().zip(answers) {
                note(account, progress, number, &answer);
            }
            Ok(())
        }
        // One of them breaks a rule: each by itself, so that the others land.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge) => {
            for (number, job) in numbers.into_iter().zip(jobs) {
                match send_all(store, std::slice::from_ref(&job), patience, progress).await {
                    Ok(answers) => answers.iter().for_each(|it| note(account, progress, number, &it.answer)),
                    Err(error) if error.is_transient() => return Err(error.into()),
                    Err(error) => refuse(account, progress, number, &error.to_string()),
                }
            }
            Ok(())
        }
        Err(error) if error.is_transient() => Err(Failure::new(UNREACHABLE, error.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn send_all(
    store: &Store,
    jobs: &[NewJob],
    patience: Duration,
    progress: &ProgressBar,
) -> leasehold::Result<Vec<Enqueued>> {
    let until = Deadline::after(patience);
    loop {
        let request = Enqueue { jobs: jobs.to_vec() };
        match store.backend().enqueue(store.deadline(), request).await {
            Err(error) if error.is_transient() && !until.has_passed() => {
                progress.suspend(|| say(&format!("{error}; trying again")));
                tokio::time::sleep(PAUSE.min(until.left())).await;
            }
            sent => return sent,
        }
    }
}

fn note(account: &mut Account, progress: &ProgressBar, number: u64, answer: &EnqueueAnswer) {
    match answer {
        EnqueueAnswer::Created => account.created += 1,
        EnqueueAnswer::Existing => account.existing += 1,
        EnqueueAnswer::Held | EnqueueAnswer::Replaced => account.held += 1,
        EnqueueAnswer::Refused(error) => refuse(account, progress, number, &error.to_string()),
    }
}

fn refuse(account: &mut Account, progress: &ProgressBar, number: u64, why: &str) {
    account.refused += 1;
    if account.refused <= NAMED {
        progress.suspend(|| say(&format!("line {number}: {why}")));
    } else if account.refused == NAMED + 1 {
        progress.suspend(|| say("more lines are refused; they are counted"));
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(style("{spinner} {human_pos} lines, {per_sec}, {elapsed}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Reads all lines, and hands them on in batches; waits while two are not sent yet.
fn read_lines(
    input: &Input,
    most: usize,
    bytes: usize,
    batches: &mpsc::Sender<Vec<Line>>,
) -> Result<(), Failure> {
    let mut source: Box<dyn BufRead> = match &input.file {
        Some(path) => {
            let file = File::open(path);
            let why = |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
            Box::new(BufReader::with_capacity(1 << 16, file.map_err(why)?))
        }
        None => Box::new(BufReader::with_capacity(1 << 16, io::stdin())),
    };
    let (mut number, mut batch, mut size) = (0, Vec::new(), 0);
    let mut line = Vec::new();
    while read_line(&mut source, most, &mut line)? {
        number += 1;
        if number < input.from {
            continue;
        }
        if size + line.len() > bytes || batch.len() >= BATCH {
            size = 0;
            if batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
        }
        size += line.len();
        batch.push((number, job(&line, most, input)));
    }
    let _ = batches.blocking_send(batch);
    Ok(())
}

/// Reads a line, and no more of it than may be; tells whether there was one.
fn read_line(source: &mut dyn BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut some = source.take(most as u64 + 1);
    if some.read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(true);
    }
    // The rest of one that is too long.
    loop {
        let rest = source.fill_buf()?;
        if rest.is_empty() {
            return Ok(true);
        }
        let end = rest.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(rest.len(), |end| end + 1);
        source.consume(count);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn job(line: &[u8], most: usize, input: &Input) -> Result<NewJob, String> {
    if line.len() > most {
        return Err(format!("it is longer than {most} bytes"));
    }
    let text = str::from_utf8(line).map_err(|error| format!("it is no UTF-8: {error}"))?;
    match &input.kind {
        Some(kind) => Ok(input.terms.apply(NewJob::new(kind.clone(), Payload::from(text.to_owned())))),
        None => serde_json::from_str(text)
            .map_err(|error| error.to_string())
            .and_then(|said| of(said, &input.terms)),
    }
}

/// The job that a line says.
fn of(said: Said<'_>, terms: &Terms) -> Result<NewJob, String> {
    let payload = said.payload.map_or(Payload::EMPTY, |raw| Payload::from(raw.get().to_owned()));
    let mut job = terms.apply(NewJob::new(said.kind, payload));
    if let Some(id) = said.id {
        job = job.id(id);
    }
    if let Some(queue) = said.queue {
        job = job.queue(queue);
    }
    if let Some(priority) = said.priority {
        job = job.priority(priority);
    }
    for when in said.delay.into_iter().chain(said.run_at) {
        job = match when.parse::<Moment>().map_err(|why| format!("{when:?}: {why}"))? {
            Moment::At(at) => job.run_at(at),
            Moment::Ago(span) => job.delay(span),
        };
    }
    job = said.tags.into_iter().fold(job, NewJob::tag);
    if let Some(key) = said.unique {
        job = job.unique(key, UniqueScope::UntilFinished);
    }
    if let Some(limit) = said.limit {
        job = job.limit(limit.key, limit.max);
    }
    if let Some(attempts) = said.max_attempts {
        job = job.max_attempts(attempts);
    }
    if let Some(time) = said.timeout {
        job = job.timeout(humantime::parse_duration(&time).map_err(|error| format!("{time:?}: {error}"))?);
    }
    Ok(said.headers.into_iter().fold(job, |job, (name, value)| job.header(name, value)))
}
