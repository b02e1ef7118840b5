use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold_conformance::history::Journal;
use tokio::time::sleep;

use crate::SoakOptions;
use crate::run::Trouble;

/// The worker processes, each of which writes a history of its own.
pub(super) struct Crowd {
    url: String,
    place: PathBuf,
    journal: Journal,
    children: Vec<(String, Child)>,
    started: u32,
    pub(super) killed: u32,
}

impl Crowd {
    pub(super) fn new(url: &str, place: &Path, journal: Journal) -> Self {
        let (url, place) = (url.to_owned(), place.to_path_buf());
        Self { url, place, journal, children: Vec::new(), started: 0, killed: 0 }
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

    /// Kills one at random, again and again, and starts another in its place, until all is calm.
    pub(super) async fn kill_often(
        &mut self,
        options: &SoakOptions,
        seed: u64,
        calm: &AtomicBool,
    ) -> Result<(), Trouble> {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x1);
        loop {
            sleep(Duration::from_millis(options.kill_every)).await;
            if calm.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (name, mut child) = self.children.swap_remove(dice.usize(..self.children.len()));
            child.kill()?;
            child.wait()?;
            self.journal.killed(&name)?;
            self.killed += 1;
            self.start()?;
        }
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
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
