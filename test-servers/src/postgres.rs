use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::container::Container;
use crate::process::{Order, Process, User, free_port};
use crate::{Certificates, Missing};

/// A URL of a server to be used in place of one of our own. Its user must be allowed to make schemas.
const URL: &str = "LEASEHOLD_TEST_POSTGRES_URL";
/// What is run in a container where there is no other server.
const IMAGE: (&str, &str) = ("postgres", "16");
/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// What helps where there is no server.
const HELPS: &str = "`cargo xtask servers` says how to install PostgreSQL";
/// Settings that spare what no test needs. What makes a commit durable is left as it is.
const SETTINGS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=64MB",
    "logging_collector=on",
    "log_filename=log",
    "autovacuum_naptime=5s",
];

/// A PostgreSQL server, whose superuser `postgres` needs no password.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    port: u16,
    process: Option<Process>,
    certificates: Option<Certificates>,
    _container: Option<Container>,
}

impl Postgres {
    /// A server: the one that the variable `LEASEHOLD_TEST_POSTGRES_URL` names, else [one of our own](Self::own),
    /// else one in a container.
    ///
    /// # Errors
    /// [`Missing`] if there is none and none can be started.
    pub fn server() -> Result<Self, Missing> {
        Self::server_with(&[])
    }

    /// The same; if it is one of our own, with these settings, `name=value`.
    ///
    /// # Errors
    /// [`Missing`] if there is none and none can be started.
    pub fn server_with(settings: &[&str]) -> Result<Self, Missing> {
        if let Ok(url) = std::env::var(URL)
            && !url.is_empty()
        {
            return Ok(Self { url, port: 0, process: None, certificates: None, _container: None });
        }
        Self::own_with(settings, &[])
            .or_else(|missing| Self::contained().map_err(|none| missing.and(none)))
            .map_err(|missing| missing.before(format!("{URL} is not set")))
    }

    /// A server on this machine, to be broken, whatever the environment says.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn own() -> Result<Self, Missing> {
        Self::own_with(&[], &[])
    }

    /// The same with these settings of the server, `name=value`, and this in its environment.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn own_with(settings: &[&str], environment: &[(String, String)]) -> Result<Self, Missing> {
        let programs = programs()?;
        let failed = |error: io::Error| {
            Missing::new(vec![format!("{} does not start: {error}", programs.display())], HELPS)
        };
        let port = free_port().map_err(failed)?;
        // The server refuses to run for a user who may do everything.
        let user = User::unprivileged().map_err(failed)?;
        let folder = tempfile::Builder::new().prefix("leasehold-server-").tempdir().map_err(failed)?.keep();
        if let Some(user) = user {
            chown(&folder, Some(user.id), Some(user.group)).map_err(failed)?;
        }
        if let Err(error) = init(&programs, &folder, user) {
            let _ = fs::remove_dir_all(&folder);
            return Err(failed(error));
        }
        let arguments = arguments(&folder, port, settings);
        let process = Process::start_in(&programs.join("postgres"), environment, folder, user, arguments);
        let process = process.map_err(failed)?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let server = Self { url, port, process: Some(process), certificates: None, _container: None };
        server.wait().map_err(|error| {
            let log = server.process.as_ref().map(Process::log).unwrap_or_default();
            Missing::new(vec![format!("the server does not come up: {error}\n{log}\n")], HELPS)
        })?;
        Ok(server)
    }

    /// A server on this machine that speaks TLS, too.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn over_tls() -> Result<Self, Missing> {
        let made = Certificates::make().and_then(|made| {
            made.give_to(User::unprivileged()?)?;
            Ok(made)
        });
        let made = made.map_err(|error| Missing::here(format!("no certificates: {error}")))?;
        let file = made.server().display().to_string();
        let (certificate, key) = (format!("ssl_cert_file={file}"), format!("ssl_key_file={file}"));
        let mut server = Self::own_with(&["ssl=on", &certificate, &key], &[])?;
        server.certificates = Some(made);
        Ok(server)
    }

    /// The certificates of a server that speaks TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    fn contained() -> Result<Self, Missing> {
        let command = ["postgres", "-c", "max_connections=300"];
        let container =
            Container::run(IMAGE, 5_432, &command, "database system is ready to accept connections")?;
        let port = container.port;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let server = Self { url, port, process: None, certificates: None, _container: Some(container) };
        server
            .wait()
            .map_err(|error| Missing::new(vec![format!("the container's server: {error}")], HELPS))?;
        Ok(server)
    }

    /// The URL, with no options.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of this server for this user, with no password.
    pub fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// The port of 127.0.0.1 on which it listens, where it is one of our own.
    pub fn port(&self) -> Option<u16> {
        self.process.as_ref().map(|_| self.port)
    }

    /// Kills it with all its processes, as a crash does.
    ///
    /// # Errors
    /// That it is not one of our own.
    pub fn kill(&self) -> io::Result<()> {
        self.order(Order::Kill)
    }

    /// Stops all its processes where they are, until it is [thawed](Self::thaw).
    ///
    /// # Errors
    /// That it is not one of our own.
    pub fn freeze(&self) -> io::Result<()> {
        self.order(Order::Freeze)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// That it is not one of our own.
    pub fn thaw(&self) -> io::Result<()> {
        self.order(Order::Thaw)
    }

    /// Starts it again on its data, and returns once it answers.
    ///
    /// # Errors
    /// That it is not one of our own, or does not answer within a minute.
    pub fn restart(&self) -> io::Result<()> {
        self.order(Order::Kill)?;
        self.order(Order::Start)?;
        self.wait()
    }

    fn order(&self, order: Order) -> io::Result<()> {
        let process = self.process.as_ref();
        process.ok_or_else(|| io::Error::other("the server is not one of our own"))?.order(order)
    }

    /// Waits until somebody may log in. In a thread of its own, so that it can be called from anywhere.
    fn wait(&self) -> io::Result<()> {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ready = async {
                while !greets(self.port).await.unwrap_or(false) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    // It gives up if a process that has just been killed still holds its memory.
                    self.process.as_ref().map_or(Ok(()), |process| process.order(Order::Start))?;
                }
                Ok(())
            };
            let in_time = runtime.block_on(async { tokio::time::timeout(START, ready).await });
            in_time.unwrap_or_else(|_| Err(io::Error::other(format!("it was not ready within {START:?}"))))
        };
        thread::scope(|threads| threads.spawn(work).join())
            .unwrap_or_else(|_| Err(io::Error::other("the wait panicked")))
    }
}

/// Whether a server lets the superuser in: it answers the first message by an `R`, and by an `E` while it starts.
async fn greets(port: u16) -> io::Result<bool> {
    let mut wire = TcpStream::connect(("127.0.0.1", port)).await?;
    let words = b"user\0postgres\0database\0postgres\0\0";
    wire.write_u32(u32::try_from(words.len() + 8).unwrap_or(0)).await?;
    wire.write_u32(196_608).await?;
    wire.write_all(words).await?;
    Ok(wire.read_u8().await? == b'R')
}

/// The folder with the server's programs: on the PATH, or where Debian puts them, the newest.
fn programs() -> Result<PathBuf, Missing> {
    let debians = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut known: Vec<PathBuf> = debians.map(|entry| entry.path().join("bin")).collect();
    known.sort_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<_> = std::env::split_paths(&path).collect();
    let has_all = |folder: &&PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    let found = path.iter().chain(known.iter().rev()).find(has_all).cloned();
    let tried = "no folder of the PATH or of /usr/lib/postgresql has `initdb` and `postgres`";
    found.ok_or_else(|| Missing::new(vec![tried.into()], HELPS))
}

/// Makes an empty database in the folder.
fn init(programs: &Path, folder: &Path, user: Option<User>) -> io::Result<()> {
    let mut command = Command::new(programs.join("initdb"));
    command.arg("--pgdata").arg(folder.join("data"));
    command.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
    command.current_dir(folder).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user.id).gid(user.group);
    }
    let output = command.output()?;
    let why = || io::Error::other(format!("initdb: {}", String::from_utf8_lossy(&output.stderr)));
    output.status.success().then_some(()).ok_or_else(why)
}

fn arguments(folder: &Path, port: u16, settings: &[&str]) -> Vec<String> {
    let mut arguments = vec!["-D".into(), folder.join("data").display().to_string()];
    arguments.extend(["-p".into(), port.to_string()]);
    let log = format!("log_directory={}", folder.display());
    let all = SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).chain([log]);
    arguments.extend(all.flat_map(|setting| ["-c".to_owned(), setting]));
    arguments
}
