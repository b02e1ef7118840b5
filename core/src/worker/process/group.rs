use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

/// Leads the group, so that the group's number cannot become another's while it is there, and kills all of it when the
/// pipe ends that only the worker holds: when the worker is gone, however it went. By the pipe it is told for how many
/// seconds the group may live, and kills it when it was told nothing else by then: a worker that is frozen says nothing.
const GUARD: &str = r#"
trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE TSTP TTIN TTOU
echo
while read -r left; do
    { sleep "$left" && kill -9 0; } >/dev/null &
    if [ "$timer" ]; then kill -9 "$timer"; wait "$timer"; fi
    timer=$!
done
kill -9 0
"#;

/// A process group that ends with this value, and with this process.
///
/// Whoever joins it has a copy of the pipe until it runs its own program, and has joined it by then. So there is no
/// moment at which the worker can die and leave a member behind.
pub(super) struct Group {
    id: Pid,
    /// Not waited for before the group has ended: its number would be free for others.
    _guard: Child,
    held: ChildStdin,
    said: ChildStdout,
}

impl Group {
    pub(super) async fn start() -> io::Result<Self> {
        let mut guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "leasehold-guard"])
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let gone = || io::Error::other("the guard of its process group ended");
        let id = guard.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).ok_or_else(gone)?;
        let (held, said) = guard.stdin.take().zip(guard.stdout.take()).ok_or_else(gone)?;
        let mut group = Self { id, _guard: guard, held, said };
        // It does not heed signals from here on.
        if group.said.read(&mut [0]).await? == 0 {
            return Err(gone());
        }
        Ok(group)
    }

    pub(super) fn id(&self) -> i32 {
        self.id.as_raw_nonzero().get()
    }

    /// Waits until the guard is gone, which nobody but somebody else's `kill -9` can be the cause of.
    pub(super) async fn unguarded(said: &mut ChildStdout) {
        while said.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
    }

    /// Has it live no longer than until then, unless it is told again.
    pub(super) async fn live_until(&mut self, end: Instant) -> io::Result<()> {
        live_until(&mut self.held, end).await
    }

    /// What tells that the guard is gone, what it is told by, and the rest.
    pub(super) fn parts(&mut self) -> (&mut ChildStdout, &mut ChildStdin, Members) {
        (&mut self.said, &mut self.held, Members(self.id))
    }
}

pub(super) async fn live_until(held: &mut ChildStdin, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
    held.write_all(format!("{left:.3}\n").as_bytes()).await
}

impl Drop for Group {
    fn drop(&mut self) {
        Members(self.id).signal(Signal::KILL);
    }
}

/// All members of a group that still stands.
#[derive(Clone, Copy)]
pub(super) struct Members(Pid);

impl Members {
    /// Sends all of them a signal; the guard heeds none but `SIGKILL`.
    pub(super) fn signal(self, signal: Signal) {
        // There is nobody left if it fails.
        let _ = kill_process_group(self.0, signal);
    }
}
