//! Indexes a folder: one job per file, each read, hashed and counted by workers; the totals are read back
//! from the queue. Kill it in any way and run it again: it carries on where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use leasehold::backend::Filter;
use leasehold::policy::JobFailure;
use leasehold::worker::{Args, Json};
use leasehold::{JobArgs, JobId, NewJob, Result, State, Store, Worker};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

#[derive(Parser)]
#[command(about = "Indexes a folder with a job queue")]
struct Options {
    /// The folder to index
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The store of the jobs
    #[arg(long, default_value = "sqlite:target/index_files.db")]
    url: String,
    /// How many workers run in this process
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How many files each worker reads at once
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
}

#[derive(Serialize, Deserialize)]
struct IndexFile {
    path: PathBuf,
}

impl JobArgs for IndexFile {
    const KIND: &'static str = "index_file";
}

#[derive(Serialize, Deserialize, Default)]
struct Facts {
    sha256: String,
    lines: u64,
    bytes: u64,
}

async fn index_file(Args(file): Args<IndexFile>) -> std::result::Result<Json<Facts>, JobFailure> {
    // What cannot be read now will not be readable in a second: the job fails at once, and says why.
    let unreadable = |e| JobFailure::error("unreadable", format!("{}: {e}", file.path.display())).permanent();
    let content = tokio::fs::read(&file.path).await.map_err(unreadable)?;
    let facts = move || Facts {
        sha256: Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect(),
        lines: content.iter().filter(|byte| **byte == b'\n').count() as u64,
        bytes: content.len() as u64,
    };
    tokio::task::spawn_blocking(facts).await.map(Json).map_err(|e| JobFailure::error("panic", e.to_string()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folder = options.folder.canonicalize().map_err(|e| {
        leasehold::Error::invalid(format!("the folder {} cannot be opened: {e}", options.folder.display()))
    })?;
    let store = leasehold::connect(&options.url).await?;
    let queue = store.queue("files")?;
    let jobs = files(&folder).into_iter().map(|path| {
        // An id made from the path: enqueuing the same file again leaves one job.
        let id = JobId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_os_str().as_encoded_bytes()));
        Ok(NewJob::of(&IndexFile { path })?.id(id))
    });
    let answers = queue.enqueue_all(jobs.collect::<Result<Vec<_>>>()?).await?;
    let new = answers.iter().filter(|answer| answer.is_created()).count();
    eprintln!("{} files in {}, {new} of them new", answers.len(), folder.display());

    let mut workers = Vec::new();
    for _ in 0..options.workers {
        let worker = Worker::builder(&store).queue("files").handle(IndexFile::KIND, index_file);
        // A short lease: what a killed process held is taken up again a few seconds later.
        let short = Duration::from_secs(3);
        workers
            .push(worker.concurrency(options.concurrency).lease(short).recovery(short / 3).build()?.start());
    }
    let finished = tokio::select! {
        done = watch(&queue) => { done?; true }
        _ = tokio::signal::ctrl_c() => { eprintln!("stopping; run again to go on"); false }
    };
    for worker in workers {
        worker.stop().await?;
    }
    if finished { print_totals(&store, &folder).await } else { Ok(()) }
}

/// All files below the folder but hidden and ignored ones.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = ignore::Walk::new(folder).filter_map(std::result::Result::ok);
    entries
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(|e| e.into_path())
        .collect()
}

/// Shows how far the queue has come, until it is empty.
async fn watch(queue: &leasehold::Queue) -> Result<()> {
    let style = "{bar:40} {human_pos}/{human_len} files, {per_sec}, {eta} left {msg}";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style).expect("a valid template"));
    loop {
        let counts = queue.counts().await?;
        let ended =
            [State::Succeeded, State::Failed, State::Cancelled].map(|state| counts.of(state)).iter().sum();
        bar.set_length(counts.total());
        bar.set_position(ended);
        bar.set_message(match counts.of(State::Failed) {
            0 => String::new(),
            failed => format!("({failed} failed)"),
        });
        if ended == counts.total() {
            bar.finish();
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A table by file type, from the results that the queue keeps.
async fn print_totals(store: &Store, folder: &Path) -> Result<()> {
    let mut totals: BTreeMap<String, (u64, u64, Facts)> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut next = None;
    loop {
        let page = store.list(Filter::default(), next, 1_000).await?;
        for job in page.jobs {
            let Ok(IndexFile { path }) = job.payload.parse() else { continue };
            if !path.starts_with(folder) {
                continue;
            }
            let extension = path.extension().map_or("(none)".into(), |e| format!(".{}", e.to_string_lossy()));
            let (files, failed, sum) = totals.entry(extension).or_default();
            *files += 1;
            if let Some(facts) = job.result.as_ref().and_then(|result| result.parse::<Facts>().ok()) {
                sum.lines += facts.lines;
                sum.bytes += facts.bytes;
            } else {
                *failed += 1;
                failures.push(
                    job.last_failure().map_or(job.state.to_string(), |failure| failure.message.clone()),
                );
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::UTF8_FULL_CONDENSED)
        .set_header(["type", "files", "failed", "lines", "bytes"]);
    for (extension, (files, failed, sum)) in totals {
        let numbers = [files, failed, sum.lines].map(|n| HumanCount(n).to_string());
        table.add_row([vec![extension], numbers.to_vec(), vec![HumanBytes(sum.bytes).to_string()]].concat());
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    failures.iter().take(20).for_each(|why| println!("failed: {why}"));
    Ok(())
}
