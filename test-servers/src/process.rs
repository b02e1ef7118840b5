//! A child that dies with this process, however this process dies.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server under the eye of a shell that reads from a pipe of ours. Once the pipe ends, because this value was
/// dropped or this process is gone, the shell kills the server and removes its folder.
#[derive(Debug)]
pub(crate) struct Process {
    watchdog: Child,
    folder: PathBuf,
}

const WATCHDOG: &str = r#"folder=$1; shift; "$@" </dev/null >/dev/null 2>&1 & cat >/dev/null; kill -9 $!; wait; rm -rf "$folder""#;

impl Process {
    /// Starts a program with these arguments; its folder is a new one, which the arguments may name.
    pub(crate) fn start(program: &Path, arguments: impl FnOnce(&Path) -> Vec<String>) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("leasehold-server-").tempdir()?.keep();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&folder)
            .arg(program)
            .args(arguments(&folder))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { watchdog, folder })
    }

    /// The end of the server's log, for whoever has to find out why it does not work.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
