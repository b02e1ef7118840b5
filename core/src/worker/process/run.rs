use std::convert::Infallible;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::exit::Ended;
use super::group::{Group, Members, live_until};
use super::output::{keep, lines};
use crate::backend::Level;
use crate::policy::{JobFailure, Outcome};
use crate::worker::attempt::Attempt;

/// How long what a program started may go on when the program itself has ended, to say what it has to say.
const LINGER: Duration = Duration::from_millis(250);
/// How long its pipes are read once all of it was killed: somebody who left the group may hold them.
const DRAIN: Duration = Duration::from_secs(1);
/// What an attempt takes beyond its grace.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);

/// The signal by which a guard ends its group.
const KILLED: i32 = Signal::KILL.as_raw();

/// A program at work. With its group, all of it ends.
struct Running {
    group: Group,
    child: Child,
    result: pipe::Receiver,
}

impl Settings {
    /// Runs the program for one attempt.
    pub(super) async fn run(&self, attempt: &Attempt) -> Outcome {
        let running = match self.start(attempt).await {
            Ok(running) => running,
            Err(error) => {
                let text = format!("the program {:?} could not be started: {error}", self.program);
                return Outcome::Failure(JobFailure::error("process_not_started", text));
            }
        };
        let ended = self.finish(running, attempt).await;
        let was_killed = ended.as_ref().map_or(true, |ended| ended.status.signal() == Some(KILLED));
        if was_killed && attempt.has_outlived_its_lease() {
            // The guard did it while this worker was frozen: the program has not failed.
            return Outcome::Interrupted;
        }
        match ended {
            Ok(ended) => self.outcome(ended, attempt.store().limits().payload_bytes),
            Err(error) => Outcome::Failure(JobFailure::error("process_lost", error.to_string())),
        }
    }

    async fn start(&self, attempt: &Attempt) -> io::Result<Running> {
        let mut group = Group::start().await?;
        group.live_until(attempt.lives_until()).await?;
        let (result, theirs) = io::pipe()?;
        let result = pipe::Receiver::from_owned_fd(result.into())?;
        let command = self.command(attempt, group.id(), theirs.into())?;
        // The command goes with its end of the pipe, which would otherwise never end.
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Running { group, child, result })
    }

    async fn finish(&self, running: Running, attempt: &Attempt) -> io::Result<Ended> {
        let Running { mut group, mut child, result: pipe } = running;
        let (guard, told, members) = group.parts();
        let limits = attempt.store().limits();
        let (stdin, stdout, stderr) = pipes(&mut child)?;
        let (mut result, mut last) = (Vec::new(), None);
        let over = CancellationToken::new();
        let talk = async {
            let payload = attempt.job().payload.as_bytes();
            let most = limits.log_line_bytes;
            let said = lines(stdout, most, |line| attempt.log(Level::Info, line));
            let complained = lines(stderr, most, |line| {
                if !line.trim().is_empty() {
                    last = Some(line.clone());
                }
                attempt.log(Level::Warn, line);
            });
            let result = keep(pipe, limits.payload_bytes, &mut result);
            tokio::join!(feed(stdin, payload), said, complained, result);
        };
        let cut_off = async {
            over.cancelled().await;
            tokio::time::sleep(LINGER).await;
            members.signal(Signal::KILL);
            tokio::time::sleep(DRAIN).await;
        };
        let talk = async {
            tokio::select! {
                () = talk => {}
                () = cut_off => {}
            }
        };
        let end = async {
            let ended = self.end(&mut child, guard, members, attempt).await;
            over.cancel();
            ended
        };
        let ended = async {
            tokio::select! {
                ended = end => ended,
                never = keep_alive(told, attempt) => match never {},
            }
        };
        let (ended, ()) = tokio::join!(ended, talk);
        let (status, told) = ended?;
        Ok(Ended { status, told, result, last })
    }

    /// Waits for the program's end, sees to it where it is told to end, and answers whether it was.
    async fn end(
        &self,
        child: &mut Child,
        guard: &mut ChildStdout,
        members: Members,
        attempt: &Attempt,
    ) -> io::Result<(ExitStatus, bool)> {
        tokio::select! {
            status = child.wait() => return Ok((status?, false)),
            () = attempt.cancelled() => {}
            () = Group::unguarded(guard) => {
                members.signal(Signal::KILL);
                child.wait().await?;
                return Err(io::Error::other("somebody killed the guard of the program's process group"));
            }
        }
        members.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(self.grace, child.wait()).await {
            return Ok((status?, true));
        }
        attempt.log(Level::Warn, format!("the program did not end within {:?} and is killed", self.grace));
        members.signal(Signal::KILL);
        Ok((child.wait().await?, true))
    }
}

/// Tells the guard of each renewal of the lease. One that takes nothing any more is gone, and seen to be elsewhere.
async fn keep_alive(guard: &mut ChildStdin, attempt: &Attempt) -> Infallible {
    let mut end = attempt.lives_until();
    loop {
        let _ = live_until(guard, end).await;
        end = attempt.lives_beyond(end).await;
    }
}

fn pipes(child: &mut Child) -> io::Result<(ChildStdin, ChildStdout, ChildStderr)> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(io::Error::other("the program was started without its pipes"));
    };
    Ok((stdin, stdout, stderr))
}

/// Hands the payload over. A program need not read it.
async fn feed(mut stdin: ChildStdin, payload: &[u8]) {
    let _ = stdin.write_all(payload).await;
}
