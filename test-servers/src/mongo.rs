use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

use crate::process::{Process, free_port};
use crate::{Missing, program};

/// A URL of a server to be used in place of one of our own.
const URL: &str = "LEASEHOLD_TEST_MONGO_URL";
/// How long servers may take until they can be written to.
const START: Duration = Duration::from_secs(60);

/// A MongoDB server or replica set.
#[derive(Debug)]
pub struct Mongo {
    url: String,
    nodes: Vec<Process>,
}

impl Mongo {
    /// A replica set of so many nodes on this machine, or the server that the variable `LEASEHOLD_TEST_MONGO_URL`
    /// names.
    ///
    /// # Errors
    /// [`Missing`] if there is none and none can be started.
    pub fn replica_set(nodes: usize) -> Result<Self, Missing> {
        if let Some(given) = Self::given() {
            return Ok(given);
        }
        let start = || -> io::Result<Self> {
            let ports = (0..nodes).map(|_| free_port()).collect::<io::Result<Vec<_>>>()?;
            let program = program("mongod").map_err(io::Error::other)?;
            let start = |port: &u16| node(&program, *port, &["--replSet", "test", "--oplogSize", "128"]);
            let started = ports.iter().map(start).collect::<io::Result<Vec<_>>>()?;
            let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            let first = format!("mongodb://{}/?directConnection=true", hosts[0]);
            let url = format!("mongodb://{}/?replicaSet=test", hosts.join(","));
            let mongo = Self { url, nodes: started };
            mongo.wait(first, Some(initiate(&hosts)))?;
            Ok(mongo)
        };
        Self::told(start())
    }

    /// A server on its own: with neither replication nor transactions.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn standalone() -> Result<Self, Missing> {
        let start = || -> io::Result<Self> {
            let port = free_port()?;
            let node = node(&program("mongod").map_err(io::Error::other)?, port, &[])?;
            let url = format!("mongodb://127.0.0.1:{port}/");
            let mongo = Self { url: url.clone(), nodes: vec![node] };
            mongo.wait(url, None)?;
            Ok(mongo)
        };
        Self::told(start())
    }

    /// A server on its own that asks for credentials, and whose URL has those of a user who may only read.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn guarded(user: &str, password: &str) -> Result<Self, Missing> {
        let start = || -> io::Result<Self> {
            let port = free_port()?;
            let node = node(&program("mongod").map_err(io::Error::other)?, port, &["--auth"])?;
            let mongo =
                Self { url: format!("mongodb://{user}:{password}@127.0.0.1:{port}/"), nodes: vec![node] };
            // Whoever comes first from this host may make the first user.
            let create = doc! {"createUser": user, "pwd": password, "roles": ["readAnyDatabase"]};
            mongo.wait(format!("mongodb://127.0.0.1:{port}/"), Some(create))?;
            Ok(mongo)
        };
        Self::told(start())
    }

    /// The URL, which names no database.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn given() -> Option<Self> {
        let url = std::env::var(URL).ok().filter(|url| !url.is_empty())?;
        Some(Self { url, nodes: Vec::new() })
    }

    fn told(outcome: io::Result<Self>) -> Result<Self, Missing> {
        outcome.map_err(|error| {
            let tried = vec![format!("{URL} is not set"), error.to_string()];
            Missing::new(tried, "`cargo xtask servers` brings what is needed")
        })
    }

    /// Waits until the server can be written to. In a thread of its own, so that it can be called from anywhere.
    fn wait(&self, url: String, first: Option<Document>) -> io::Result<()> {
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::time::timeout(START, writable(&url, first))
                    .await
                    .map_err(|_| io::Error::other(format!("it was not ready within {START:?}")))?
                    .map_err(io::Error::other)
            })
        };
        let outcome =
            thread::spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the wait panicked")));
        outcome.map_err(|error| {
            let logs: Vec<_> = self.nodes.iter().map(Process::log).collect();
            io::Error::other(format!("the server does not come up: {error}\n{}", logs.join("\n")))
        })
    }
}

fn node(program: &Path, port: u16, more: &[&str]) -> io::Result<Process> {
    Process::start(program, |folder| {
        let path = |name: &str| folder.join(name).display().to_string();
        let mut arguments: Vec<String> = vec!["--port".into(), port.to_string()];
        arguments.extend(["--dbpath".into(), path(""), "--logpath".into(), path("log")]);
        for fixed in [
            "--bind_ip=127.0.0.1",
            "--nounixsocket",
            "--wiredTigerCacheSizeGB=0.25",
            "--setParameter=enableTestCommands=1",
            "--setParameter=diagnosticDataCollectionEnabled=false",
        ] {
            arguments.push(fixed.into());
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments
    })
}

fn initiate(hosts: &[String]) -> Document {
    let member = |(i, host): (usize, &String)| doc! {"_id": i as i32, "host": host};
    let members: Vec<_> = hosts.iter().enumerate().map(member).collect();
    let settings = doc! {"electionTimeoutMillis": 1_000, "heartbeatIntervalMillis": 200};
    doc! {"replSetInitiate": {"_id": "test", "members": members, "settings": settings}}
}

/// Runs a first command once the server listens, and waits until it can be written to.
async fn writable(url: &str, mut first: Option<Document>) -> mongodb::error::Result<()> {
    let mut options = ClientOptions::parse(url).await?;
    options.server_selection_timeout = Some(Duration::from_millis(500));
    let admin = Client::with_options(options)?.database("admin");
    loop {
        if let Some(command) = &first {
            // It is not listening yet, or has heard it already.
            match admin.run_command(command.clone()).await {
                Ok(_) => first = None,
                Err(error) if error.to_string().contains("already") => first = None,
                Err(_) => {}
            }
        } else if let Ok(hello) = admin.run_command(doc! {"hello": 1}).await
            && (hello.get_bool("isWritablePrimary").unwrap_or(false) || hello.contains_key("primary"))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
