use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::container::Container;
use crate::process::{Order, Process, free_port};
use crate::{Certificates, Missing, program};

/// A URL of a server to be used in place of one of our own.
const URL: &str = "LEASEHOLD_TEST_REDIS";
/// What is run in a container where there is no other server.
const IMAGE: (&str, &str) = ("redis", "7.0");
/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);
/// How long to wait between two looks whether it answers.
const BETWEEN: Duration = Duration::from_millis(20);
/// How long it may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(10);
/// What makes every acknowledged write outlive the loss of power.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A Redis or Valkey server.
#[derive(Debug)]
pub struct Redis {
    url: String,
    port: u16,
    process: Option<Process>,
    certificates: Option<Certificates>,
    _container: Option<Container>,
}

impl Redis {
    /// A server that syncs its append-only file with every write: the one that the variable `LEASEHOLD_TEST_REDIS` names,
    /// else [one of our own](Self::own), else one in a container.
    ///
    /// # Errors
    /// [`Missing`] if there is none and none can be started.
    pub fn any() -> Result<Self, Missing> {
        if let Ok(url) = std::env::var(URL)
            && !url.is_empty()
        {
            return Ok(Self { url, port: 0, process: None, certificates: None, _container: None });
        }
        let contained = |missing: Missing| Self::contained().map_err(|none| missing.and(none));
        Self::own().or_else(contained).map_err(|missing| missing.before(format!("{URL} is not set")))
    }

    /// A server on this machine, to be broken, whatever the environment says. It syncs its append-only file with every
    /// write.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn own() -> Result<Self, Missing> {
        Self::own_with(&DURABLE, &[])
    }

    /// A server on this machine with these arguments, which keeps nothing on its disk unless they say so, and this in its
    /// environment, such as a library to preload.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn own_with(arguments: &[&str], environment: &[(String, String)]) -> Result<Self, Missing> {
        let program = server()?;
        let started = Self::start(&program, arguments, environment);
        started.map_err(|error| Missing::here(format!("{} does not start: {error}", program.display())))
    }

    /// A server on this machine that speaks TLS on a port beside its own: answers it, and the URL of that port.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn over_tls() -> Result<(Self, String), Missing> {
        let made = Certificates::make().and_then(|made| Ok((made, free_port()?)));
        let (made, port) = made.map_err(|error| Missing::here(format!("no certificates: {error}")))?;
        let (server, ca, tls_port) =
            (made.server().display().to_string(), made.authority().display().to_string(), port.to_string());
        let arguments = ["--tls-port", &tls_port, "--tls-auth-clients", "no", "--tls-ca-cert-file", &ca];
        let keys = ["--tls-cert-file", &server, "--tls-key-file", &server];
        let mut server = Self::own_with(&[&arguments[..], &keys].concat(), &[])?;
        server.certificates = Some(made);
        Ok((server, format!("rediss://127.0.0.1:{port}/")))
    }

    /// The certificates of a server that speaks TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// The URL, with the rights of the user `default`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL with the credentials of this user in it.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/", self.port)
    }

    /// The port of 127.0.0.1 on which it listens, if it is one of our own.
    pub fn port(&self) -> Option<u16> {
        self.process.as_ref().map(|_| self.port)
    }

    /// Kills it by SIGKILL, and returns once it is gone.
    ///
    /// # Errors
    /// That it is none of our own, or that whoever watches it is gone; so with all of these.
    pub fn kill(&self) -> io::Result<()> {
        self.order(Order::Kill)
    }

    /// Starts it again after a [`kill`](Self::kill), on the same data and port, and waits until it answers.
    ///
    /// # Errors
    /// See [`kill`](Self::kill).
    pub fn restart(&self) -> io::Result<()> {
        self.order(Order::Start)?;
        self.wait()
    }

    /// Stops it by SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// See [`kill`](Self::kill).
    pub fn freeze(&self) -> io::Result<()> {
        self.order(Order::Freeze)
    }

    /// Lets it go on after a [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// See [`kill`](Self::kill).
    pub fn thaw(&self) -> io::Result<()> {
        self.order(Order::Thaw)
    }

    /// Runs a command over a connection of its own, and returns the answer's first line, or the text of a longer one.
    ///
    /// # Errors
    /// What the server says, and that it gave no answer within 10 s.
    pub fn run(&self, command: &[&str]) -> io::Result<String> {
        ask(self.port, command)
    }

    fn order(&self, order: Order) -> io::Result<()> {
        let process =
            self.process.as_ref().ok_or_else(|| io::Error::other("the server is somebody else's"))?;
        process.order(order)
    }

    fn start(program: &Path, arguments: &[&str], environment: &[(String, String)]) -> io::Result<Self> {
        let port = free_port()?;
        let process = Process::start(program, environment, |folder| {
            let own = |name: &str, value: String| [format!("--{name}"), value];
            let mut all: Vec<String> = Vec::new();
            all.extend(own("port", port.to_string()));
            all.extend(own("bind", "127.0.0.1".into()));
            all.extend(own("dir", folder.display().to_string()));
            all.extend(own("logfile", folder.join("log").display().to_string()));
            all.extend(own("save", String::new()));
            all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
            all
        })?;
        let url = format!("redis://127.0.0.1:{port}/");
        let server = Self { url, port, process: Some(process), certificates: None, _container: None };
        server.wait()?;
        Ok(server)
    }

    fn contained() -> Result<Self, Missing> {
        let command = [&["redis-server"], &DURABLE[..]].concat();
        let container = Container::run(IMAGE, 6_379, &command, "Ready to accept connections")?;
        let (port, url) = (container.port, format!("redis://127.0.0.1:{}/", container.port));
        Ok(Self { url, port, process: None, certificates: None, _container: Some(container) })
    }

    /// Waits until it answers.
    fn wait(&self) -> io::Result<()> {
        let since = Instant::now();
        loop {
            match ask(self.port, &["PING"]) {
                Ok(_) => return Ok(()),
                // It asks for credentials, so it is there.
                Err(error) if error.to_string().contains("NOAUTH") => return Ok(()),
                Err(error) if since.elapsed() > START => {
                    let log = self.process.as_ref().map(Process::log).unwrap_or_default();
                    return Err(io::Error::other(format!("{error}\n{log}\n")));
                }
                Err(_) => thread::park_timeout(BETWEEN),
            }
        }
    }
}

/// The program: Redis, or else Valkey.
fn server() -> Result<PathBuf, Missing> {
    program("redis-server").or_else(|missing| program("valkey-server").map_err(|none| missing.and(none)))
}

/// Sends a command as the protocol has it, and reads the answer.
fn ask(port: u16, command: &[&str]) -> io::Result<String> {
    let mut wire = TcpStream::connect(("127.0.0.1", port))?;
    wire.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("*{}\r\n", command.len());
    for part in command {
        // Writing to a string does not fail.
        let _ = write!(text, "${}\r\n{part}\r\n", part.len());
    }
    wire.write_all(text.as_bytes())?;
    let mut answer = BufReader::new(wire);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("-", error)) => Err(io::Error::other(error.to_owned())),
        Some(("$", length)) => {
            let mut body = vec![0; length.parse().unwrap_or(0)];
            io::Read::read_exact(&mut answer, &mut body)?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        }
        Some((_, rest)) => Ok(rest.to_owned()),
        None => Err(io::Error::other("the server hung up")),
    }
}
