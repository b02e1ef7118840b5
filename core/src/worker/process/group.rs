use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Leads the group, so that the group's number cannot become another's while it is there, and kills all of it when the
/// pipe ends that only the worker holds: when the worker is gone, however it went.
const GUARD: &str = r#"
trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE TSTP TTIN TTOU
echo
read -r _
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
    _held: ChildStdin,
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
        let mut group = Self { id, _guard: guard, _held: held, said };
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

    /// What tells that the guard is gone, and the rest.
    pub(super) fn parts(&mut self) -> (&mut ChildStdout, Members) {
        (&mut self.said, Members(self.id))
    }
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
