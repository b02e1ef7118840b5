use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

use crate::container::Container;
use crate::process::{Process, free_port};
use crate::{Certificates, Missing, Node, program};

/// A URL of a server to be used in place of one of our own.
const URL: &str = "LEASEHOLD_TEST_MONGO_URL";
/// What is run in a container where there is no other server.
const IMAGE: (&str, &str) = ("mongo", "6.0");
/// How long servers may take until they can be written to.
const START: Duration = Duration::from_secs(60);
/// What lets a test set failpoints, and spares what no test needs.
const PARAMETERS: [&str; 2] =
    ["--setParameter=enableTestCommands=1", "--setParameter=diagnosticDataCollectionEnabled=false"];
/// Who may do everything on a guarded server.
const ROOT: (&str, &str) = ("root", "all-of-it");

/// A MongoDB server or replica set.
#[derive(Debug)]
pub struct Mongo {
    url: String,
    nodes: Vec<Node>,
    certificates: Option<Certificates>,
    _container: Option<Container>,
}

impl Mongo {
    /// A replica set of so many nodes: the one that the variable `LEASEHOLD_TEST_MONGO_URL` names, else
    /// [one of our own](Self::own), else one node in a container.
    ///
    /// # Errors
    /// [`Missing`] if there is none and none can be started.
    pub fn replica_set(nodes: usize) -> Result<Self, Missing> {
        if let Ok(url) = std::env::var(URL)
            && !url.is_empty()
        {
            return Ok(Self { url, nodes: Vec::new(), certificates: None, _container: None });
        }
        let arguments = ["--replSet", "test", "--bind_ip_all"];
        let initiate = initiate(&["127.0.0.1:27017".into()]);
        Self::own(nodes)
            .or_else(|missing| Self::contained(&arguments, Some(initiate)).map_err(|none| missing.and(none)))
            .map_err(|missing| missing.before(format!("{URL} is not set")))
    }

    /// A replica set of so many nodes on this machine, to be [broken](Node), whatever the environment says.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn own(nodes: usize) -> Result<Self, Missing> {
        Self::own_with(nodes, &[])
    }

    /// The same with this in the environment of every node, such as a library to preload.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn own_with(nodes: usize, environment: &[(String, String)]) -> Result<Self, Missing> {
        let arguments = ["--replSet=test", "--oplogSize=128"];
        let set = Self::start_with(nodes, &arguments, "", environment)?;
        let hosts: Vec<String> = set.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let set = Self { url: format!("mongodb://{}/?replicaSet=test", hosts.join(",")), ..set };
        set.prepare(set.nodes[0].url.clone(), Some(initiate(&hosts)))?;
        Ok(set)
    }

    /// A server on its own: with neither replication nor transactions.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn standalone() -> Result<Self, Missing> {
        let own = || {
            let server = Self::start(1, &[], "")?;
            server.prepare(server.url.clone(), None)?;
            Ok(server)
        };
        own().or_else(|missing: Missing| {
            Self::contained(&["--bind_ip_all"], None).map_err(|none| missing.and(none))
        })
    }

    /// A server on its own that asks for credentials, and whose URL has those of a user who may only read. The URL
    /// of its [node](Self::nodes) has those of a user who may do everything.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn guarded(user: &str, password: &str) -> Result<Self, Missing> {
        let mut server = Self::start(1, &["--auth"], "")?;
        let create = |(user, password): (&str, &str), role: &str| doc! {"createUser": user, "pwd": password, "roles": [role]};
        // Whoever comes first from this host may make the first user.
        server.prepare(server.url.clone(), Some(create(ROOT, "root")))?;
        server.nodes[0].url = server.url_of(ROOT.0, ROOT.1);
        server.prepare(server.nodes[0].url.clone(), Some(create((user, password), "readAnyDatabase")))?;
        server.url = server.url_of(user, password);
        Ok(server)
    }

    /// A server on its own that speaks nothing but TLS, and whose URL names the authority that signed its
    /// certificate.
    ///
    /// # Errors
    /// [`Missing`] if none can be started.
    pub fn over_tls() -> Result<Self, Missing> {
        let made = Certificates::make();
        let certificates = made.map_err(|error| Missing::here(format!("no certificates: {error}")))?;
        let key = format!("--tlsCertificateKeyFile={}", certificates.server().display());
        let authority = certificates.authority().display().to_string();
        let ca = format!("--tlsCAFile={authority}");
        let arguments = ["--tlsMode=requireTLS", "--tlsAllowConnectionsWithoutCertificates", &key, &ca];
        let mut server = Self::start(1, &arguments, &format!("&tls=true&tlsCAFile={authority}"))?;
        server.certificates = Some(certificates);
        server.prepare(server.url.clone(), None)?;
        Ok(server)
    }

    /// The URL, which names no database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the first node with the credentials of this user in it.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let port = self.nodes.first().map_or(27_017, Node::port);
        format!("mongodb://{user}:{password}@127.0.0.1:{port}/")
    }

    /// The servers, where they are our own.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The certificates of a server that speaks TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// The node that is primary, once one is.
    ///
    /// # Errors
    /// That none is after a minute.
    pub async fn primary(&self) -> io::Result<&Node> {
        let looking = async {
            loop {
                for node in &self.nodes {
                    if node.is_primary().await {
                        return node;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(START, looking).await;
        found.map_err(|_| io::Error::other(format!("no primary within {START:?}")))
    }

    /// Starts servers with these arguments; `options` are those that their URLs need.
    fn start(nodes: usize, arguments: &[&str], options: &str) -> Result<Self, Missing> {
        Self::start_with(nodes, arguments, options, &[])
    }

    fn start_with(
        nodes: usize,
        arguments: &[&str],
        options: &str,
        environment: &[(String, String)],
    ) -> Result<Self, Missing> {
        let program = program("mongod")?;
        let start = |_| -> io::Result<Node> {
            let port = free_port()?;
            let url = format!("mongodb://127.0.0.1:{port}/?directConnection=true{options}");
            Ok(Node { process: start(&program, environment, port, arguments)?, port, url })
        };
        let started = (0..nodes).map(start).collect::<io::Result<Vec<_>>>();
        let nodes = started
            .map_err(|error| Missing::here(format!("{} does not start: {error}", program.display())))?;
        let url = nodes.first().map(|node| node.url.clone()).unwrap_or_default();
        Ok(Self { url, nodes, certificates: None, _container: None })
    }

    fn contained(arguments: &[&str], first: Option<Document>) -> Result<Self, Missing> {
        let command = [&["mongod"], arguments, &PARAMETERS].concat();
        let container = Container::run(IMAGE, 27_017, &command, "Waiting for connections")?;
        let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", container.port);
        let server = Self { url, nodes: Vec::new(), certificates: None, _container: Some(container) };
        server.prepare(server.url.clone(), first)?;
        Ok(server)
    }

    /// Waits until the server can be written to. In a thread of its own, so that it can be called from anywhere.
    fn prepare(&self, url: String, first: Option<Document>) -> Result<(), Missing> {
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
            let logs: Vec<_> = self.nodes.iter().map(|node| node.process.log()).collect();
            Missing::here(format!("the server does not come up: {error}\n{}\n", logs.join("\n")))
        })
    }
}

fn start(program: &Path, environment: &[(String, String)], port: u16, more: &[&str]) -> io::Result<Process> {
    Process::start(program, environment, |folder| {
        let path = |name: &str| folder.join(name).display().to_string();
        let mut arguments: Vec<String> = vec!["--port".into(), port.to_string()];
        arguments.extend(["--dbpath".into(), path(""), "--logpath".into(), path("log")]);
        let fixed = ["--logappend", "--bind_ip=127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB=0.25"];
        arguments.extend([&fixed[..], &PARAMETERS, more].concat().into_iter().map(str::to_owned));
        arguments
    })
}

fn initiate(hosts: &[String]) -> Document {
    let member = |(i, host): (usize, &String)| doc! {"_id": i as i32, "host": host};
    let members: Vec<_> = hosts.iter().enumerate().map(member).collect();
    let settings = doc! {
        "electionTimeoutMillis": 1_000, "heartbeatIntervalMillis": 200, "heartbeatTimeoutSecs": 1,
        "catchUpTimeoutMillis": 1_000,
    };
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
