//! The connection, and how a script is run on it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use leasehold_core::authoring::calls::closed;
pub(crate) use leasehold_core::authoring::stored::millis;
use leasehold_core::{Clock, Timestamp};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, Value};
use tokio::time::Instant;

use crate::config::Config;
use crate::error::{Done, Fault, corrupt, lacks_script};
use crate::scripts::Script;
use crate::watch::Channel;

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);
/// A call that waited for longer than this and got no answer has its connection replaced: the wire may be dead.
const SILENCE: Duration = Duration::from_secs(1);
/// How many items one run of a script works on: the server does nothing else meanwhile.
const PART: usize = 1_000;
/// How often a call is sent on to another node of a cluster.
const REDIRECTS: u32 = 3;

/// A server and the namespace on it.
pub(crate) struct Db {
    pub(crate) config: Config,
    /// The record of the namespace; every other key is made from its beginning.
    meta: String,
    clock: Option<Arc<dyn Clock>>,
    link: RwLock<Option<Link>>,
    /// Where changes are told, and where new log lines.
    pub(crate) changes: Channel,
    pub(crate) lines: Channel,
}

/// A connection that opens itself again when it breaks, and where it leads.
#[derive(Clone)]
struct Link {
    info: ConnectionInfo,
    manager: ConnectionManager,
    /// Tells this link from the ones before and after it.
    number: u64,
}

impl Link {
    fn to(info: ConnectionInfo, number: u64) -> Done<Self> {
        // A call has its own deadline and is repeated by who made it: to wait here would only hide what is wrong.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(None)
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(Client::open(info.clone())?, config)?;
        Ok(Self { info, manager, number })
    }
}

impl Db {
    pub(crate) fn new(config: Config) -> Done<Self> {
        let (prefix, clock) = (config.prefix(), config.clock.clone());
        let link = Link::to(config.connection()?, 0)?;
        Ok(Self {
            config,
            meta: format!("{prefix}meta"),
            clock,
            link: RwLock::new(Some(link)),
            changes: Channel::new(format!("{prefix}events")),
            lines: Channel::new(format!("{prefix}logged")),
        })
    }

    /// Runs a script with these arguments after the hour.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Done<T> {
        let mut command = self.command(script);
        arguments(&mut command);
        self.run_command(script, &command).await
    }

    /// The beginning of what runs a script, to which its own arguments are added.
    pub(crate) fn command(&self, script: &Script) -> Cmd {
        let mut command = script.by_hash();
        self.begin(&mut command);
        command
    }

    /// Runs a script by its whole command. A server may lose what was loaded into it at any time.
    pub(crate) async fn run_command<T: FromRedisValue>(&self, script: &Script, command: &Cmd) -> Done<T> {
        if script.writes {
            leasehold_core::fail_point!("write::before_send");
        }
        let answer = match self.send(command).await {
            Err(Fault::Driver(error)) if lacks_script(&error) => {
                self.send(&script.load()).await?;
                self.send(command).await?
            }
            answer => answer?,
        };
        if script.writes {
            leasehold_core::fail_point!("write::acted");
        }
        Ok(redis::from_redis_value(answer)?)
    }

    /// What every script is given first: the key by which a cluster finds it, and the hour, unless it is the server's.
    pub(crate) fn begin(&self, command: &mut Cmd) {
        let hour = self.clock.as_ref().map(|clock| clock.now().as_millis());
        command.arg(1).arg(&self.meta).arg(hour.map_or_else(String::new, |hour| hour.to_string()));
    }

    /// Runs a script that answers item by item, part by part: `head` is what it is told first, and `push` adds an item.
    pub(crate) async fn run_parts<I, T: FromRedisValue>(
        &self,
        script: &Script,
        head: impl Fn(&mut Cmd),
        items: &[I],
        push: impl Fn(&mut Cmd, &I) -> Done<()>,
    ) -> Done<Vec<T>> {
        let mut answers: Vec<T> = Vec::with_capacity(items.len());
        for part in items.chunks(PART) {
            let mut command = self.command(script);
            head(&mut command);
            part.iter().try_for_each(|item| push(&mut command, item))?;
            let more: Done<Vec<T>> = self.run_command(script, &command).await;
            answers.extend(more.map_err(|fault| if answers.is_empty() { fault } else { fault.in_part() })?);
        }
        if answers.len() == items.len() {
            Ok(answers)
        } else {
            Err(corrupt("a script answered for other items"))
        }
    }

    /// Sends a command, to wherever a cluster says that it belongs.
    pub(crate) async fn send(&self, command: &Cmd) -> Done<Value> {
        let mut redirects = REDIRECTS;
        loop {
            let mut link = self.link()?;
            let mut watch = Silence { db: self, link: link.number, since: Instant::now(), answered: false };
            let answer = link.manager.send_packed_command(command).await.and_then(Value::extract_error);
            watch.answered = true;
            let Err(error) = answer else { return Ok(answer?) };
            let node = error.redirect_node().filter(|_| error.code() == Some("MOVED")).map(|(node, _)| node);
            if let Some(info) = node.and_then(|node| at(&link.info, node)).filter(|_| redirects > 0) {
                redirects -= 1;
                self.replace(link.number, info)?;
                continue;
            }
            if error.code() == Some("READONLY") {
                // The name may lead to the new primary by now.
                self.replace(link.number, self.config.connection()?)?;
            }
            return Err(error.into());
        }
    }

    /// A client of where calls go now, for connections of another kind.
    pub(crate) fn client(&self) -> Done<Client> {
        Ok(Client::open(self.link()?.info)?)
    }

    /// Lets go of the connection: every later call is refused.
    pub(crate) fn close(&self) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.changes.close();
        self.lines.close();
    }

    fn link(&self) -> Done<Link> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner).clone();
        link.ok_or_else(|| closed().into())
    }

    /// Puts a new link in the place of that of this number, if it is still there.
    fn replace(&self, number: u64, info: ConnectionInfo) -> Done<()> {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if link.as_ref().is_some_and(|link| link.number == number) {
            *link = Some(Link::to(info, number + 1)?);
        }
        Ok(())
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Db").field(&self.config).finish()
    }
}

/// Notices when a call is given up that waited for long, as at its deadline.
struct Silence<'a> {
    db: &'a Db,
    link: u64,
    since: Instant,
    answered: bool,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() > SILENCE {
            let info = self.db.config.connection().map_err(Fault::from);
            if let Err(fault) = info.and_then(|info| self.db.replace(self.link, info)) {
                tracing::debug!(?fault, "a silent connection was not replaced");
            }
        }
    }
}

/// The same access to another node.
fn at(info: &ConnectionInfo, node: &str) -> Option<ConnectionInfo> {
    let (host, port) = node.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.into(), port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host.into(), port),
    };
    Some(info.clone().set_addr(addr))
}

/// A moment as scripts tell it.
pub(crate) fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}
