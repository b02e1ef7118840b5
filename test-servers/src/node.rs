use std::io;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, Result};
use mongodb::options::ClientOptions;
use tokio::time::timeout;

use crate::process::{Order, Process};

/// How long a node may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// One server of a [`Mongo`](crate::Mongo), to be broken and mended.
#[derive(Debug)]
pub struct Node {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) url: String,
}

impl Node {
    /// The URL of this node alone, with the rights to do everything.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of 127.0.0.1 on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it by SIGKILL, and returns once it is gone.
    ///
    /// # Errors
    /// That whoever watches the server is gone; so with all of these.
    pub fn kill(&self) -> io::Result<()> {
        self.process.order(Order::Kill)
    }

    /// Starts it again after a [`kill`](Self::kill): on the same data and port, with the same arguments.
    ///
    /// # Errors
    /// See [`kill`](Self::kill).
    pub fn start(&self) -> io::Result<()> {
        self.process.order(Order::Start)
    }

    /// Stops it by SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// See [`kill`](Self::kill).
    pub fn freeze(&self) -> io::Result<()> {
        self.process.order(Order::Freeze)
    }

    /// Lets it go on after a [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// See [`kill`](Self::kill).
    pub fn thaw(&self) -> io::Result<()> {
        self.process.order(Order::Thaw)
    }

    /// Runs a command on the database `admin` of this very node, over a connection of its own.
    ///
    /// # Errors
    /// The driver's, and that the node gave no answer within 10 s.
    pub async fn run(&self, command: Document) -> Result<Document> {
        ask(&self.url, command, PATIENCE).await
    }

    /// Sets a failpoint: `mode` and `data` as the server's `configureFailPoint` takes them.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    pub async fn fail(&self, point: &str, mode: impl Into<Bson>, data: Document) -> Result<()> {
        self.run(doc! {"configureFailPoint": point, "mode": mode.into(), "data": data}).await.map(drop)
    }

    /// Takes a failpoint away.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    pub async fn heal(&self, point: &str) -> Result<()> {
        self.run(doc! {"configureFailPoint": point, "mode": "off"}).await.map(drop)
    }

    /// Asks it to be primary no longer, and not to become it again for so many seconds.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    pub async fn step_down(&self, seconds: i32) -> Result<()> {
        let command = doc! {"replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 0, "force": true};
        self.run(command).await.map(drop)
    }

    /// Whether it can be written to now, as far as it says.
    pub async fn is_primary(&self) -> bool {
        let hello = ask(&self.url, doc! {"hello": 1}, Duration::from_millis(500)).await;
        hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
    }
}

/// Runs a command on `admin`, over a connection that is closed afterwards.
async fn ask(url: &str, command: Document, patience: Duration) -> Result<Document> {
    let asked = async {
        let mut options = ClientOptions::parse(url).await?;
        options.server_selection_timeout = Some(patience);
        let client = Client::with_options(options)?;
        let answer = client.database("admin").run_command(command).await;
        client.shutdown().immediate(true).await;
        answer
    };
    let late = |_| Error::custom(format!("the server gave no answer within {patience:?}"));
    timeout(patience, asked).await.map_err(late)?
}
