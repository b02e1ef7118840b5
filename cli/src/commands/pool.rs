use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::failure::{FAILED, Failure};
use crate::output::say;
use crate::words::span;

/// The pauses before a process is started again, the first and the longest; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// One that lived for so long begins with the first pause again.
const LONG_LIFE: Duration = Duration::from_mins(1);
/// How often the memory of a process is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// For how long a new process is watched before the next one is replaced.
const SETTLED: Duration = Duration::from_secs(1);

/// Keeps processes running, as workers: restarted with growing pauses, replaced one by one on SIGHUP, stopped in order.
///
/// The file names them:
///
///   grace = "30s"                       # to end in, before they are killed
///   [mail]
///   command = ["leasehold", "work", "--queue", "mail", "--exec", "./send.sh"]
///   count = 4                           # defaults to 1
///   memory = 512                        # MiB, beyond which one is replaced
///   env = { RUST_LOG = "warn" }
///
/// SIGHUP reads the file again and replaces every process, one after the other. SIGINT and SIGTERM ask all to end and wait.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  leasehold pool workers.toml\n  leasehold pool --check workers.toml"
)]
pub(crate) struct Pool {
    /// The file that names the processes
    file: PathBuf,
    /// Only tell what would run
    #[arg(long)]
    check: bool,
}

/// What the file says.
#[derive(Debug, Deserialize)]
struct File {
    #[serde(default = "grace", with = "humantime_text")]
    grace: Duration,
    #[serde(flatten)]
    programs: BTreeMap<String, Program>,
}

fn grace() -> Duration {
    Duration::from_secs(30)
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    command: Vec<String>,
    #[serde(default = "one")]
    count: usize,
    memory: Option<u64>,
    folder: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

fn one() -> usize {
    1
}

mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(text: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(text)?).map_err(D::Error::custom)
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let why = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| why(&error))?;
    let file: File = toml::from_str(&text).map_err(|error| why(&error))?;
    for (name, program) in &file.programs {
        if program.command.is_empty() || program.count == 0 {
            return Err(why(&format!("{name} needs a command and a count of 1 at least")));
        }
    }
    if file.programs.is_empty() {
        return Err(why(&"it names no process; see `leasehold pool --help`"));
    }
    Ok(file)
}

pub(crate) async fn run(command: Pool, context: &Context) -> Result<(), Failure> {
    let mut file = read(&command.file)?;
    if command.check {
        let rows: Vec<(&String, &Program)> = file.programs.iter().collect();
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|(name, it)| vec![(*name).clone(), it.count.to_string(), it.command.join(" ")])
            .collect();
        return context.output.list(&rows, &["name", "count", "command"], "nothing", Clone::clone);
    }
    let mut signals = super::work::Signals::listen()?;
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let mut fleet = Fleet::start(&file);
    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = hangup.recv() => match read(&command.file) {
                Ok(new) => {
                    say("replacing every process, one after the other");
                    tokio::select! {
                        () = fleet.replace(&new) => {
                            file = new;
                            say("replaced");
                        }
                        () = signals.next() => break,
                    }
                }
                Err(failure) => say(&format!("{failure}; going on as before")),
            },
        }
    }
    say(&format!("stopping; what has not ended in {} is killed", span(file.grace)));
    if fleet.stop().await { Ok(()) } else { Err(Failure::said(FAILED)) }
}

/// Processes that are kept running.
struct Fleet {
    members: Vec<Member>,
}

/// One place in the pool, whatever process is in it.
struct Member {
    stop: CancellationToken,
    tasks: JoinSet<bool>,
}

impl Fleet {
    fn start(file: &File) -> Self {
        Self {
            members: Self::places(file)
                .map(|(name, program)| Member::start(name, program, file.grace))
                .collect(),
        }
    }

    fn places(file: &File) -> impl Iterator<Item = (String, Program)> {
        file.programs.iter().flat_map(|(name, program)| {
            (1..=program.count).map(move |number| (format!("{name}/{number}"), program.clone()))
        })
    }

    /// Puts a new process in each place, one after the other. Where this is given up, each place has one, old or new.
    async fn replace(&mut self, file: &File) {
        let mut places = 0;
        for (name, program) in Self::places(file) {
            if let Some(old) = self.members.get_mut(places) {
                old.end().await;
                *old = Member::start(name, program, file.grace);
            } else {
                self.members.push(Member::start(name, program, file.grace));
            }
            places += 1;
            tokio::time::sleep(SETTLED).await;
        }
        for old in self.members.iter_mut().skip(places) {
            old.end().await;
        }
        self.members.truncate(places);
    }

    /// Asks all to end and waits; tells whether none had to be killed.
    async fn stop(mut self) -> bool {
        self.members.iter().for_each(|member| member.stop.cancel());
        let ends = futures::future::join_all(self.members.iter_mut().map(Member::end)).await;
        ends.into_iter().all(|well| well)
    }
}

impl Member {
    fn start(name: String, program: Program, grace: Duration) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(name, program, grace, stop.clone()));
        Self { stop, tasks }
    }

    /// Asks it to end and waits; tells whether it did not have to be killed.
    async fn end(&mut self) -> bool {
        self.stop.cancel();
        self.tasks.join_next().await.is_none_or(|ended| ended.unwrap_or(false))
    }
}

/// Keeps a process running until it is to stop; tells whether the last one ended by itself then.
async fn keep(name: String, program: Program, grace: Duration, stop: CancellationToken) -> bool {
    let mut pause = PAUSES.0;
    loop {
        let begun = Instant::now();
        match start(&name, &program) {
            Ok(mut child) => {
                let pid = child.id();
                say(&format!("{name} runs as process {}", pid.unwrap_or(0)));
                tokio::select! {
                    ended = child.wait() => match ended {
                        Ok(status) => say(&format!("{name} ended: {status}")),
                        Err(error) => say(&format!("{name} cannot be waited for: {error}")),
                    },
                    () = too_large(pid, program.memory) => {
                        say(&format!("{name} has more than {} MiB; it is replaced", program.memory.unwrap_or(0)));
                        end(&name, child, grace).await;
                    }
                    () = stop.cancelled() => return end(&name, child, grace).await,
                }
            }
            Err(error) => say(&format!("{name} cannot be started: {error}")),
        }
        if begun.elapsed() > LONG_LIFE {
            pause = PAUSES.0;
        }
        say(&format!("{name} is started again in {}", span(pause)));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return true,
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn start(name: &str, program: &Program) -> std::io::Result<Child> {
    let words: Vec<OsString> = program.command.iter().map(OsString::from).collect();
    let (first, rest) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(first);
    command.args(rest).envs(&program.env).env("LEASEHOLD_POOL_NAME", name).stdin(Stdio::null());
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    // A signal of the terminal is for the pool, which tells its processes.
    command.process_group(0).kill_on_drop(true).spawn()
}

/// Asks a process to end, and kills it when its grace is over; tells whether it ended by itself.
async fn end(name: &str, mut child: Child, grace: Duration) -> bool {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(grace, child.wait()).await.is_ok() {
        say(&format!("{name} has ended"));
        return true;
    }
    say(&format!("{name} did not end in {}; it is killed", span(grace)));
    let _ = child.kill().await;
    false
}

/// Comes when a process has more memory than so many MiB, where that can be seen.
async fn too_large(pid: Option<u32>, most: Option<u64>) {
    let (Some(pid), Some(most)) = (pid, most) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        if kib.is_some_and(|kib| kib > most << 10) {
            return;
        }
    }
}
