//! Indexes a folder: one job per file, each read, hashed and counted by workers; the totals are read back
//! from the queue. Kill it in any way and run it again: it carries on where it was.

mod totals;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use leasehold::policy::JobFailure;
use leasehold::worker::{Args, Json};
use leasehold::{Error, JobArgs, JobId, Limits, NewJob, Result, State, Store, Worker};
use leasehold_conformance::history::{FileSink, Recorder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Indexes a folder with a job queue
#[derive(Parser)]
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
    /// Record every call to the store in this file, for the checker of histories
    #[arg(long)]
    history: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct IndexFile {
    path: String,
}

impl JobArgs for IndexFile {
    const KIND: &'static str = "index_file";
}

#[derive(Clone, Serialize, Deserialize, Default)]
struct Facts {
    sha256: String,
    lines: u64,
    bytes: u64,
}

async fn index_file(Args(file): Args<IndexFile>) -> std::result::Result<Json<Facts>, JobFailure> {
    // What cannot be read now will not be readable in a second: the job fails at once, and says why.
    let unreadable = |e| JobFailure::error("unreadable", format!("{}: {e}", file.path)).permanent();
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
    let unusable =
        |e| Error::invalid(format!("the folder {} cannot be opened: {e}", options.folder.display()));
    let folder = options.folder.canonicalize().map_err(unusable)?;
    let store = connect(&options).await?;
    let queue = store.queue("files")?;
    let answers =
        queue.enqueue_all(files(&folder).map(|path| index(&path)).collect::<Result<Vec<_>>>()?).await?;
    let new = answers.iter().filter(|answer| answer.is_created()).count();
    eprintln!("{} files in {}, {new} of them new", answers.len(), folder.display());

    let mut workers = Vec::new();
    for _ in 0..options.workers {
        // A short lease: what a killed process held is taken up again a few seconds later.
        let worker = Worker::builder(&store).lease(Duration::from_secs(3)).recovery(Duration::from_secs(1));
        let worker =
            worker.queue("files").concurrency(options.concurrency).handle(IndexFile::KIND, index_file);
        workers.push(worker.build()?.start());
    }
    let finished = tokio::select! {
        done = watch(&queue) => { done?; true }
        _ = tokio::signal::ctrl_c() => { eprintln!("stopping; run again to go on"); false }
    };
    for worker in workers {
        worker.stop().await?;
    }
    if finished { totals::print(&store, &folder).await } else { Ok(()) }
}

async fn connect(Options { url, history, .. }: &Options) -> Result<Store> {
    let Some(file) = history else { return leasehold::connect(url).await };
    let process = file.file_stem().map_or("index_files".into(), |name| name.to_string_lossy());
    let unwritable = |e| Error::invalid(format!("{} cannot be written: {e}", file.display()));
    let sink = Arc::new(FileSink::append(file).map_err(unwritable)?);
    let recorder = Recorder::wrap(leasehold::open(url).await?, &process, sink);
    let store = Store::with_limits(Arc::new(recorder), Limits::default());
    store.setup().await.map(|()| store)
}

/// All files below the folder but hidden and ignored ones.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let told = |entry: std::result::Result<_, ignore::Error>| entry.inspect_err(|e| eprintln!("{e}")).ok();
    let entries = ignore::Walk::new(folder).filter_map(told);
    entries
        .filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()))
        .map(ignore::DirEntry::into_path)
}

/// A job whose id is made from the path: enqueuing the same file again leaves one job.
fn index(path: &Path) -> Result<NewJob> {
    let id = JobId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_os_str().as_encoded_bytes()));
    // Whoever kills this program again and again is not the file's fault.
    Ok(NewJob::of(&IndexFile { path: path.to_string_lossy().into_owned() })?
        .id(id)
        .crash_budget(1_000)
        .max_attempts(1_000))
}

/// Shows how far the queue has come, until it is empty.
async fn watch(queue: &leasehold::Queue) -> Result<()> {
    let style = "{bar:40} {human_pos}/{human_len} files, {per_sec}, {eta} left";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style).expect("a valid template"));
    loop {
        let counts = queue.counts().await?;
        let ended =
            State::ALL.iter().filter(|state| state.is_terminal()).map(|state| counts.of(*state)).sum();
        bar.set_length(counts.total());
        bar.set_position(ended);
        if ended == counts.total() {
            bar.finish();
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
