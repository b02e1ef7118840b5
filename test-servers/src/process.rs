//! A child that dies with this process, however this process dies, and that can be killed and started again.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A server under the eye of a shell that reads orders from a pipe of ours and confirms each. Once the pipe ends,
/// because this value was dropped or this process is gone, the shell kills the server and removes its folder.
#[derive(Debug)]
pub(crate) struct Process {
    watchdog: Child,
    line: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    folder: PathBuf,
}

/// What can be done to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Start,
    Kill,
    Freeze,
    Thaw,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

const WATCHDOG: &str = r#"
folder=$1; shift; server=
start() { [ -n "$server" ] || { "$@" </dev/null >/dev/null 2>&1 & server=$!; }; }
end() { [ -z "$server" ] || { kill -9 $server; wait $server; server=; }; }
while read -r order; do
    case $order in
        start) start "$@" ;;
        kill) end ;;
        freeze) [ -z "$server" ] || kill -STOP $server ;;
        thaw) [ -z "$server" ] || kill -CONT $server ;;
    esac
    echo "$order"
done
end; rm -rf "$folder"
"#;

impl Process {
    /// Starts a program with these arguments, and this in its environment; its folder is a new one, which the arguments
    /// may name.
    pub(crate) fn start(
        program: &Path,
        environment: &[(String, String)],
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("leasehold-server-").tempdir()?.keep();
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&folder)
            .arg(program)
            .args(arguments(&folder))
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let line = watchdog.stdin.take().zip(watchdog.stdout.take().map(BufReader::new));
        let process = Self { watchdog, line: Mutex::new(line), folder };
        process.order(Order::Start)?;
        Ok(process)
    }

    /// Gives an order, and returns once it is carried out.
    pub(crate) fn order(&self, order: Order) -> io::Result<()> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let (orders, answers) = line.as_mut().ok_or_else(|| io::Error::other("nobody watches the server"))?;
        writeln!(orders, "{}", order.word())?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        let confirmed = answer.trim() == order.word();
        confirmed.then_some(()).ok_or_else(|| io::Error::other("nobody watches the server any more"))
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
        drop(self.line.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.watchdog.wait();
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
