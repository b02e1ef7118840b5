//! A wire between a client and a server that can be cut.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_conformance::CannotRun;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A TCP proxy in front of a server of 127.0.0.1, whose wire a test cuts, freezes and mends.
///
/// A replica set's driver goes to the names that the servers tell it: use `directConnection=true` through a proxy.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wire: Arc<Wire>,
    accepting: JoinHandle<()>,
}

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Connections stand, and nothing passes.
    Stalled,
    /// Connections break, and new ones too.
    Cut,
}

/// Whether the answer to a request is to be lost.
type Chosen = Box<dyn FnMut(&[u8]) -> bool + Send>;

struct Wire {
    server: u16,
    /// How it is, and how often it was broken.
    state: watch::Sender<(State, u64)>,
    chosen: Mutex<Option<Chosen>>,
    lost: AtomicUsize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("server", &self.server)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// A whole wire to the server that listens on this port of 127.0.0.1.
    ///
    /// # Errors
    /// That no port is free.
    pub async fn to(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let wire = Wire {
            server,
            state: watch::Sender::new((State::Whole, 0)),
            chosen: Mutex::default(),
            lost: AtomicUsize::new(0),
        };
        let wire = Arc::new(wire);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&wire)));
        Ok(Self { port, wire, accepting })
    }

    /// The port of 127.0.0.1 on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections by a reset, and each new one, until it [heals](Self::heal).
    pub fn cut(&self) {
        self.wire.state.send_modify(|(state, breaks)| (*state, *breaks) = (State::Cut, *breaks + 1));
    }

    /// Breaks all connections by a reset; new ones are served.
    pub fn reset(&self) {
        self.cut();
        self.heal();
    }

    /// Lets nothing pass in either direction, while connections stand, until it [heals](Self::heal).
    pub fn stall(&self) {
        self.wire.state.send_modify(|(state, _)| *state = State::Stalled);
    }

    /// Makes the wire whole: what stalled goes on.
    pub fn heal(&self) {
        self.wire.state.send_modify(|(state, _)| *state = State::Whole);
    }

    /// Loses the answer to each request for which this says so. The server has given that answer, so it has done
    /// what was asked; the client's connection is reset in its place.
    pub fn lose_answers_to(&self, chosen: impl FnMut(&[u8]) -> bool + Send + 'static) {
        *self.wire.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(chosen));
    }

    /// Loses no more answers.
    pub fn lose_no_answer(&self) {
        *self.wire.chosen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many answers were lost so far.
    pub fn lost(&self) -> usize {
        self.wire.lost.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl leasehold_conformance::Reach for Proxy {
    async fn cut(&mut self) -> Result<(), CannotRun> {
        Self::cut(self);
        Ok(())
    }

    async fn mend(&mut self) -> Result<(), CannotRun> {
        self.heal();
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, wire: Arc<Wire>) {
    while let Ok((client, _)) = listener.accept().await {
        let wire = Arc::clone(&wire);
        tokio::spawn(async move {
            // What is dropped without having been closed is reset.
            let _ = client.set_zero_linger();
            let mut state = wire.state.subscribe();
            let since = state.borrow().1;
            let broken = state.wait_for(|(state, breaks)| *state == State::Cut || *breaks > since);
            tokio::select! {
                _ = carry(client, &wire) => {}
                _ = broken => {}
            }
        });
    }
}

async fn carry(client: TcpStream, wire: &Wire) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(("127.0.0.1", wire.server)).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = AtomicBool::new(false);
    tokio::select! {
        ended = requests(from_client, to_server, wire, &losing) => ended,
        ended = answers(from_server, to_client, wire, &losing) => ended,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &Wire,
    losing: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if wire.loses(&buffer[..read]) {
            losing.store(true, Ordering::SeqCst);
        }
        wire.whole().await;
        to.write_all(&buffer[..read]).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &Wire,
    losing: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if losing.load(Ordering::SeqCst) {
            wire.lost.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        wire.whole().await;
        to.write_all(&buffer[..read]).await?;
    }
}

impl Wire {
    /// Whether the answer to this request is to be lost.
    fn loses(&self, request: &[u8]) -> bool {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.as_mut().is_some_and(|chosen| chosen(request))
    }

    /// Waits while nothing passes.
    async fn whole(&self) {
        // The sender lives as long as the wire.
        let _ = self.state.subscribe().wait_for(|(state, _)| *state == State::Whole).await;
    }
}
