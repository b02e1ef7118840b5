use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold_conformance::history::Journal;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::SoakOptions;
use crate::run::Trouble;

/// How long a worker is frozen: longer than its leases and the time until somebody looks for lost ones.
const FROZEN: Duration = Duration::from_secs(8);

/// The worker processes, each of which writes a history of its own.
pub(super) struct Crowd {
    url: String,
    place: PathBuf,
    journal: Journal,
    children: Vec<(String, Child)>,
    /// One that is frozen, and until when.
    frozen: Option<(String, Child, Instant)>,
    started: u32,
    pub(super) killed: u32,
    pub(super) freezes: u32,
}

impl Crowd {
    pub(super) fn new(url: &str, place: &Path, journal: Journal) -> Self {
        let (url, place) = (url.to_owned(), place.to_path_buf());
        Self { url, place, journal, children: Vec::new(), frozen: None, started: 0, killed: 0, freezes: 0 }
    }

    pub(super) fn start(&mut self) -> Result<(), Trouble> {
        self.started += 1;
        let name = format!("worker#{}", self.started);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["soak-worker", "--url", &self.url, "--history"]);
        command.arg(self.place.join(format!("{name}.jsonl")));
        let errors = std::fs::File::create(self.place.join(format!("{name}.err")))?;
        // It ends when the pipe does: no worker outlives this process, however it ends.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors).spawn()?;
        self.children.push((name, child));
        Ok(())
    }

    /// Kills one at random, again and again, and starts another in its place, until all is calm. Freezes one now and
    /// then, which finds its leases lost when it goes on.
    pub(super) async fn break_often(
        &mut self,
        options: &SoakOptions,
        seed: u64,
        calm: &AtomicBool,
    ) -> Result<(), Trouble> {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x1);
        let every = Duration::from_secs(options.freeze_every);
        let mut freeze_at = Instant::now() + every;
        loop {
            sleep(Duration::from_millis(options.kill_every)).await;
            if self.frozen.as_ref().is_some_and(|(_, _, until)| *until <= Instant::now()) {
                self.thaw()?;
            }
            if calm.load(Ordering::Relaxed) {
                return self.thaw();
            }
            let (name, mut child) = self.children.swap_remove(dice.usize(..self.children.len()));
            if let Some(status) = child.try_wait()? {
                return Err(format!("{name} ended by itself: {status}; see {name}.err").into());
            }
            child.kill()?;
            child.wait()?;
            self.journal.killed(&name)?;
            self.killed += 1;
            self.start()?;
            if self.frozen.is_none() && freeze_at <= Instant::now() && self.children.len() > 1 {
                freeze_at = Instant::now() + every;
                // Not the one that has just been started, which holds nothing yet.
                let (name, child) = self.children.swap_remove(dice.usize(..self.children.len() - 1));
                self.journal.fault(format!("{name} is frozen"))?;
                kill_process(Pid::from_child(&child), Signal::STOP)?;
                self.freezes += 1;
                self.frozen = Some((name, child, Instant::now() + FROZEN));
            }
        }
    }

    fn thaw(&mut self) -> Result<(), Trouble> {
        let Some((name, child, _)) = self.frozen.take() else { return Ok(()) };
        self.journal.note(format!("{name} goes on"))?;
        kill_process(Pid::from_child(&child), Signal::CONT)?;
        self.children.push((name, child));
        Ok(())
    }

    /// Lets all end by themselves.
    pub(super) fn stop(mut self) -> Result<(), Trouble> {
        for (_, child) in &mut self.children {
            drop(child.stdin.take());
        }
        for (name, mut child) in std::mem::take(&mut self.children) {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("{name} failed: {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let frozen = self.frozen.as_mut().map(|(_, child, _)| child);
        for child in self.children.iter_mut().map(|(_, child)| child).chain(frozen) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
