//! Kills processes that index files, at random moments, until every file is indexed; then proves from the store
//! and from the recorded history that nothing was lost and nothing done twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use leasehold::{Backend, Deadline, JobRecord, State, Store};
use leasehold_conformance::history::{FileSink, Journal, Rules, Tally};
use sha2::{Digest, Sha256};

use crate::KillOptions;
use crate::history::{ended, judge};
use crate::run::{Trouble, cargo, root};

/// How long a round may take; far more than it ever needs.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Kills until as many were killed as asked for.
pub(crate) fn kill(options: &KillOptions) -> Result<(), Trouble> {
    cargo(&["build", "--quiet", "--release", "--example", "index_files"])?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let files = write_files(&folder.path().join("files"), options.files, &mut dice)?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} killed {msg}")?;
    let bar = ProgressBar::new(u64::from(options.kills)).with_style(style);
    let mut killed = 0;
    for round in 1.. {
        let place = folder.path().join(format!("round{round}"));
        std::fs::create_dir(&place)?;
        let left = options.kills - killed;
        let mut play = Round::new(&place, &folder.path().join("files"), options.processes)?;
        let outcome = runtime.block_on(play.run(&files, left, &mut dice, &bar));
        if let Err(trouble) = outcome {
            let kept = folder.keep();
            return Err(format!(
                "round {round} of seed {seed}: {trouble}\nall is kept in {}",
                kept.display()
            )
            .into());
        }
        killed += play.killed;
        std::fs::remove_dir_all(&place)?;
        if killed >= options.kills {
            bar.finish();
            println!(
                "{killed} processes killed in {round} rounds: every file has exactly one result, the counts add up,"
            );
            println!("and the history keeps every invariant");
            return Ok(());
        }
    }
    Ok(())
}

/// Files of random content, and the digest of each.
fn write_files(
    folder: &Path,
    count: u32,
    dice: &mut fastrand::Rng,
) -> Result<BTreeMap<String, String>, Trouble> {
    let mut files = BTreeMap::new();
    for n in 0..count {
        let path = folder.join(format!("{:02}", n % 50)).join(format!("{n}.txt"));
        std::fs::create_dir_all(path.parent().ok_or("a file has a folder")?)?;
        let content: String = (0..dice.usize(..200)).map(|_| format!("{}\n", dice.u32(..))).collect();
        let digest = Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(&path, content)?;
        files.insert(path.display().to_string(), digest);
    }
    Ok(files)
}

/// One store, from empty to all done.
struct Round {
    url: String,
    files: PathBuf,
    place: PathBuf,
    journal: Journal,
    children: Vec<(String, Child)>,
    started: u32,
    killed: u32,
}

impl Round {
    fn new(place: &Path, files: &Path, processes: usize) -> Result<Self, Trouble> {
        let journal = Journal::new("killer", Arc::new(FileSink::append(place.join("killer.jsonl"))?));
        let url = format!("sqlite:{}", place.join("jobs.db").display());
        let (files, place) = (files.to_path_buf(), place.to_path_buf());
        let mut round = Self { url, files, place, journal, children: Vec::new(), started: 0, killed: 0 };
        for _ in 0..processes {
            round.start()?;
        }
        Ok(round)
    }

    fn start(&mut self) -> Result<(), Trouble> {
        self.started += 1;
        let name = format!("index#{}", self.started);
        let program = root().join("target/release/examples/index_files");
        let mut command = Command::new(program);
        command.arg(&self.files).args(["--url", &self.url]);
        command.arg("--history").arg(self.place.join(format!("{name}.jsonl")));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.children.push((name, child));
        Ok(())
    }

    fn kill_one(&mut self, dice: &mut fastrand::Rng) -> Result<(), Trouble> {
        let (name, mut child) = self.children.swap_remove(dice.usize(..self.children.len()));
        child.kill()?;
        child.wait()?;
        self.journal.killed(&name)?;
        self.killed += 1;
        self.start()
    }

    async fn run(
        &mut self,
        files: &BTreeMap<String, String>,
        kills: u32,
        dice: &mut fastrand::Rng,
        bar: &ProgressBar,
    ) -> Result<(), Trouble> {
        let begun = tokio::time::Instant::now();
        let store = leasehold::connect(&self.url).await?;
        let mut next = begun + Duration::from_millis(dice.u64(1..150));
        loop {
            let ended = ended(&store).await?;
            if ended == files.len() as u64 {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(
                    format!("only {ended} of {} files were indexed in {PATIENCE:?}", files.len()).into()
                );
            }
            if self.killed < kills && tokio::time::Instant::now() >= next {
                self.kill_one(dice)?;
                bar.inc(1);
                next = tokio::time::Instant::now() + Duration::from_millis(dice.u64(1..150));
            }
            bar.set_message(format!("{ended} of {} files", files.len()));
            tokio::time::sleep(LOOK).await;
        }
        for (_, child) in &mut self.children {
            child.wait()?;
        }
        let jobs = all_jobs(&store).await?;
        check_results(&jobs, files)?;
        check_counts(&store, files.len() as u64).await?;
        self.check_history(files.len()).await
    }

    /// Judges what all processes wrote down, the killed ones too.
    async fn check_history(&self, jobs: usize) -> Result<(), Trouble> {
        let backend: Arc<dyn Backend> = leasehold::open(&self.url).await?;
        let capabilities = backend.describe(Deadline::default()).await?.capabilities;
        let rules = Rules::drained(jobs).of_a_store(&capabilities);
        let verdict = judge(&self.place, &self.journal, &*backend, &rules).await?;
        let Tally { events, grants, losses, unknown, .. } = verdict.tally;
        eprintln!(
            "{} killed; {events} events, {grants} leases, {losses} taken back, {unknown} unknown",
            self.killed
        );
        if verdict.is_valid() { Ok(()) } else { Err(verdict.to_string().into()) }
    }
}

impl Drop for Round {
    /// No process outlives the chore, however it ends.
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn all_jobs(store: &Store) -> Result<Vec<JobRecord>, Trouble> {
    let (mut jobs, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(leasehold::backend::Filter::default(), after, 1_000).await?;
        if let Some(bad) = page.unreadable.first() {
            return Err(format!("a record cannot be read: {}", bad.why).into());
        }
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() {
            return Ok(jobs);
        }
    }
}

/// Every file has exactly one job, which succeeded with the right digest.
fn check_results(jobs: &[JobRecord], files: &BTreeMap<String, String>) -> Result<(), Trouble> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for job in jobs {
        let text = |payload: &leasehold::Payload, field: &str| -> Result<String, Trouble> {
            let value: serde_json::Value = payload.parse()?;
            Ok(value[field].as_str().ok_or("no such field")?.to_owned())
        };
        let path = text(&job.payload, "path")?;
        let result = job.result.as_ref().ok_or_else(|| format!("{path} has no result: {job:?}"))?;
        if job.state != State::Succeeded || files.get(&path) != Some(&text(result, "sha256")?) {
            return Err(format!("{path} has a wrong result: {job:?}").into());
        }
        *seen.entry(path).or_default() += 1;
    }
    match seen.iter().find(|(_, times)| **times != 1) {
        Some((path, times)) => Err(format!("{path} has {times} jobs").into()),
        None if seen.len() != files.len() => {
            Err(format!("{} of {} files have a job", seen.len(), files.len()).into())
        }
        None => Ok(()),
    }
}

async fn check_counts(store: &Store, files: u64) -> Result<(), Trouble> {
    let counts = store.counts().await?;
    let [queue] = counts.as_slice() else { return Err(format!("more than one queue: {counts:?}").into()) };
    if queue.total() + queue.deleted != queue.enqueued || queue.of(State::Succeeded) != files {
        return Err(format!("the counts do not add up: {queue:?}").into());
    }
    Ok(())
}
