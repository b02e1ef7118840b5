//! The parent's side: its children, the hour that all go by, and what all of them wrote down.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use leasehold_core::ManualClock;
use tempfile::TempDir;
use tokio::sync::RwLock;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::order::{Order, Role, Said};
use crate::bench::{Bench, Time, drain};
use crate::breach::{Breach, Done, Kept, Trouble};
use crate::harness::Place;
use crate::history::{FileSink, Journal, Recorder, Rules, Verdict, read_files};
use crate::keep::judge;

/// How many lines of all children may wait to be read.
const WAITING: usize = 1_024;

/// Several processes on one store.
pub(crate) struct Crew {
    /// The parent's own client.
    pub(crate) t: Bench,
    pub(crate) journal: Journal,
    pub(crate) time: Arc<RwLock<Time>>,
    histories: Vec<PathBuf>,
    members: Vec<Member>,
    said: Receiver<(usize, Said)>,
    says: Sender<(usize, Said)>,
    // The last to be dropped: the children write into it.
    folder: TempDir,
}

/// Whose hour a crew goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hour {
    /// One that the parent moves.
    Manual,
    /// The store's own.
    Stores,
}

/// A child. It dies with this value.
struct Member {
    name: String,
    process: Child,
    orders: Option<ChildStdin>,
    unheard: VecDeque<Said>,
    listener: Option<JoinHandle<()>>,
}

impl Crew {
    /// A store beside that of `t`, and nobody else on it yet.
    pub(crate) async fn gather(t: &Bench, hour: Hour) -> Done<Self> {
        let folder = tempfile::tempdir().map_err(trouble)?;
        let clock = match hour {
            Hour::Manual => Some(ManualClock::in_file(folder.path().join("hour")).map_err(trouble)?),
            Hour::Stores => None,
        };
        let parent = t.beside(clock.clone()).await?;
        let file = folder.path().join("parent");
        let sink = Arc::new(FileSink::append(&file).map_err(trouble)?);
        let recorder = Recorder::wrap(parent.shared_backend(), "parent", sink);
        let journal = recorder.journal().clone();
        if let Some(clock) = &clock {
            journal.manual_clock(clock)?;
        }
        let time = Time::moved_here(&journal, parent.clock());
        let (says, said) = mpsc::channel(WAITING);
        let t = parent.on(Arc::new(recorder));
        Ok(Self { t, journal, time, histories: vec![file], members: Vec::new(), said, says, folder })
    }

    /// A file for the history of somebody of this name.
    pub(crate) fn history(&mut self, name: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        self.histories.push(file.clone());
        file
    }

    /// Starts so many children.
    pub(crate) async fn start_all(&mut self, count: usize) -> Done {
        for _ in 0..count {
            self.start(&[]).await?;
        }
        Ok(())
    }

    /// Starts a child with this in its environment, and answers its number once it has opened the store.
    pub(crate) async fn start(&mut self, environment: &[(String, String)]) -> Done<usize> {
        self.start_at(&self.t.place().clone(), environment).await
    }

    /// Starts a child that opens the store of another place, if need be one that nobody else has opened.
    pub(crate) async fn start_at(&mut self, place: &Place, environment: &[(String, String)]) -> Done<usize> {
        let number = self.members.len();
        let name = format!("p{number}#1");
        let role = Role {
            server: place.server.clone(),
            place: place.name.clone(),
            clock: place.clock.as_ref().map(|_| self.folder.path().join("hour")),
            process: name.clone(),
            history: self.folder.path().join(&name),
            seed: fastrand::u64(..),
        };
        self.histories.push(role.history.clone());
        let elsewhere = self.t.harness().elsewhere().unwrap_or_default();
        let mut process = Command::new(std::env::current_exe().map_err(trouble)?)
            .env(Role::VARIABLE, serde_json::to_string(&role).map_err(trouble)?)
            .envs(elsewhere)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(trouble)?;
        let (orders, words) = (process.stdin.take(), process.stdout.take());
        let says = self.says.clone();
        let listen = move || {
            let lines = words.into_iter().flat_map(|words| BufReader::new(words).lines());
            for line in lines.map_while(Result::ok) {
                let said = serde_json::from_str(&line).unwrap_or(Said::Broke(line));
                if says.blocking_send((number, said)).is_err() {
                    return;
                }
            }
            // Nobody listens any more if this fails.
            let _ = says.blocking_send((number, Said::Gone));
        };
        let listener = Some(thread::Builder::new().name(name.clone()).spawn(listen).map_err(trouble)?);
        self.members.push(Member { name, process, orders, unheard: VecDeque::new(), listener });
        match self.hear_from(number).await? {
            Said::Ready => Ok(number),
            other => Err(Trouble::Unmet(format!("child {number} could not begin: {other:?}"))),
        }
    }

    /// Tells a child what to do, and does not wait until it has done it.
    pub(crate) fn tell(&mut self, number: usize, order: &Order) -> Done {
        let line = serde_json::to_string(order).map_err(trouble)?;
        let orders = self.members[number].orders.as_mut();
        let orders = orders.ok_or_else(|| Trouble::Unmet(format!("child {number} hears nothing")))?;
        writeln!(orders, "{line}").map_err(trouble)
    }

    /// What a child says next; what others say meanwhile is kept.
    pub(crate) async fn hear_from(&mut self, number: usize) -> Done<Said> {
        loop {
            if let Some(said) = self.members[number].unheard.pop_front() {
                return Ok(said);
            }
            let (who, said) = self.hear_new().await?;
            self.members[who].unheard.push_back(said);
        }
    }

    /// What anybody says next.
    pub(crate) async fn hear(&mut self) -> Done<(usize, Said)> {
        let kept = self.members.iter_mut().enumerate();
        if let Some(said) = kept.filter_map(|(who, m)| Some((who, m.unheard.pop_front()?))).next() {
            return Ok(said);
        }
        self.hear_new().await
    }

    async fn hear_new(&mut self) -> Done<(usize, Said)> {
        match self.said.recv().await {
            Some((who, Said::Broke(why))) => Err(Trouble::Unmet(format!("child {who}: {why}"))),
            Some(said) => Ok(said),
            None => Err(Trouble::Unmet("nobody says anything any more".into())),
        }
    }

    /// Tells a child what to do, and waits for what it says.
    pub(crate) async fn ask(&mut self, number: usize, order: &Order) -> Done<Said> {
        self.tell(number, order)?;
        self.hear_from(number).await
    }

    /// Kills a child by SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) -> Done {
        self.members[number].process.kill().map_err(trouble)?;
        self.bury(number)
    }

    /// Notes that a child has ended by itself.
    pub(crate) fn bury(&mut self, number: usize) -> Done {
        let member = &mut self.members[number];
        member.end();
        Ok(self.journal.killed(&member.name)?)
    }

    /// Stops a child by SIGSTOP: it is as it was, and does nothing.
    #[cfg(unix)]
    pub(crate) fn freeze(&self, number: usize) -> Done {
        self.journal.fault(format!("{} is frozen", self.members[number].name))?;
        self.signal(number, rustix::process::Signal::STOP)?;
        self.wait_until_stopped(number)
    }

    /// Waits until a child has stopped that was told to, or said that it would: one that goes on before it stops
    /// would stop for ever.
    #[cfg(unix)]
    pub(crate) fn wait_until_stopped(&self, number: usize) -> Done {
        let pid = rustix::process::Pid::from_child(&self.members[number].process);
        let waited = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED);
        match waited.map_err(trouble)? {
            Some((_, status)) if status.stopped() => Ok(()),
            other => Err(Trouble::Unmet(format!("child {number} was to stop, and did not: {other:?}"))),
        }
    }

    /// Lets a child go on after it was frozen.
    #[cfg(unix)]
    pub(crate) fn thaw(&self, number: usize) -> Done {
        self.journal.fault(format!("{} goes on", self.members[number].name))?;
        self.signal(number, rustix::process::Signal::CONT)
    }

    #[cfg(unix)]
    fn signal(&self, number: usize, signal: rustix::process::Signal) -> Done {
        let pid = rustix::process::Pid::from_child(&self.members[number].process);
        rustix::process::kill_process(pid, signal).map_err(trouble)
    }

    #[cfg(not(unix))]
    pub(crate) fn freeze(&self, _: usize) -> Done {
        Err(Trouble::Unmet("processes are frozen on Unix alone".into()))
    }

    #[cfg(not(unix))]
    pub(crate) fn wait_until_stopped(&self, number: usize) -> Done {
        self.freeze(number)
    }

    #[cfg(not(unix))]
    pub(crate) fn thaw(&self, number: usize) -> Done {
        self.freeze(number)
    }

    /// Moves the hour of all.
    pub(crate) async fn pass(&self, seconds: u64) -> Done {
        Time::pass(&self.time, seconds).await
    }

    /// Lets every job end.
    pub(crate) async fn drain(&self) -> Kept {
        drain(&self.t, &self.time).await
    }

    /// Judges what all wrote down, those who are dead too; everybody else is sent home first.
    pub(crate) async fn verdict(&mut self, rules: &Rules) -> Kept<Verdict> {
        self.members.iter_mut().for_each(Member::end);
        let fresh = self.t.another().await?;
        self.journal.last_look(fresh.backend()).await?;
        let events = read_files(&self.histories).map_err(|error| Breach::new(error.to_string()))?;
        judge(&self.t, &events, rules)
    }
}

impl Member {
    /// Ends it, if it has not ended, and waits until it is gone.
    fn end(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        drop(self.orders.take());
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.said.close();
        for member in &mut self.members {
            member.end();
            let _ = member.listener.take().map(JoinHandle::join);
        }
    }
}

fn trouble(error: impl std::fmt::Display) -> Trouble {
    Trouble::Unmet(format!("a process cannot be led: {error}"))
}
