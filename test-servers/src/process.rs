//! A child that dies with this process, however this process dies, and that can be killed and started again.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A server under the eye of a shell that reads orders from a pipe of ours and confirms each. Once the pipe ends,
/// because this value was dropped or this process is gone, the shell kills the server and removes its folder. The
/// kernel kills the server if it is the shell that is gone.
#[derive(Debug)]
pub(crate) struct Process {
    watchdog: Child,
    line: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    folder: PathBuf,
}

/// A user and a group by their numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

impl User {
    /// Somebody who may do little, where we may do everything; none where we may not.
    pub(crate) fn unprivileged() -> io::Result<Option<Self>> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let user = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut numbers = line.split(':').skip(2).map(str::parse);
            Some(Self { id: numbers.next()?.ok()?, group: numbers.next()?.ok()? })
        };
        let found = user("postgres").or_else(|| user("nobody"));
        found.map(Some).ok_or_else(|| io::Error::other("there is no user `postgres` or `nobody`"))
    }
}

/// What can be done to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Starts it unless it runs.
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

/// A signal to a whole group of processes, as a terminal sends it, leaves the shell to clean up. The server is bound to
/// it as the very last step, since a process that changes its user is bound no longer.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
folder=$1; shift; server=
bound=$(setpriv --pdeathsig KILL echo setpriv --pdeathsig KILL 2>/dev/null)
ended() { read -r _ _ state _ 2>/dev/null </proc/$server/stat && [ "$state" = Z ]; }
start() {
    [ -z "$server" ] || ! ended || { wait $server; server=; }
    [ -n "$server" ] || { (trap - HUP INT TERM; exec $bound "$@") </dev/null >/dev/null 2>&1 & server=$!; }
}
children() { cat /proc/$server/task/$server/children 2>/dev/null; }
end() { [ -z "$server" ] || { kill -STOP $server; kill -9 $(children) $server; wait $server; server=; }; }
while read -r order; do
    case $order in
        start) start "$@" ;;
        kill) end ;;
        freeze) [ -z "$server" ] || { kill -STOP $server; kill -STOP $(children) $server; } ;;
        thaw) [ -z "$server" ] || kill -CONT $(children) $server ;;
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
        let arguments = arguments(&folder);
        Self::start_in(program, environment, folder, None, arguments)
    }

    /// The same in a folder that is there, which goes with the server, and for this user.
    pub(crate) fn start_in(
        program: &Path,
        environment: &[(String, String)],
        folder: PathBuf,
        user: Option<User>,
        arguments: Vec<String>,
    ) -> io::Result<Self> {
        let mut command = Command::new("sh");
        if let Some(user) = user {
            command.uid(user.id).gid(user.group);
        }
        let mut watchdog = command
            .args(["-c", WATCHDOG, "sh"])
            .arg(&folder)
            .arg(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .current_dir(&folder)
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
        // It did not if it was killed itself.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
