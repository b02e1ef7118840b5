//! A pooler that hands out another session for each transaction, as pgbouncer does in transaction mode.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use leasehold_core::backend::{Action, Amend, Answer, Select, Watch};
use leasehold_core::{Backend, ErrorKind, State};
use leasehold_postgres::{Config, Postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{SERVER, SUCCEED, add, claim, counts, find, fresh, ids, jobs, set_up, settle, soon};

/// A pooler with so many sessions, which takes them in turn. It knows no passwords, and neither prepared statements nor
/// notifications of any client.
async fn pooler(sessions: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = SERVER.port().expect("a server of ours");
    let mut idle = VecDeque::new();
    for _ in 0..sessions {
        idle.push_back(session(server).await.expect("a session"));
    }
    let idle = Arc::new(Mutex::new(idle));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let idle = Arc::clone(&idle);
            tokio::spawn(async move { serve(client, &idle).await });
        }
    });
    port
}

/// Logs in, and reads until the server is ready.
async fn session(server: u16) -> io::Result<TcpStream> {
    let mut wire = TcpStream::connect(("127.0.0.1", server)).await?;
    let words = b"user\0postgres\0database\0postgres\0\0";
    wire.write_u32(words.len() as u32 + 8).await?;
    wire.write_u32(196_608).await?;
    wire.write_all(words).await?;
    while message(&mut wire).await?.0 != b'Z' {}
    Ok(wire)
}

/// A message: its kind, and all of its bytes.
async fn message(wire: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let kind = wire.read_u8().await?;
    let length = wire.read_u32().await?;
    let mut bytes = vec![0; length as usize + 1];
    bytes[0] = kind;
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    wire.read_exact(&mut bytes[5..]).await?;
    Ok((kind, bytes))
}

async fn serve(mut client: TcpStream, idle: &Mutex<VecDeque<TcpStream>>) -> io::Result<()> {
    loop {
        let length = client.read_u32().await?;
        let mut words = vec![0; length as usize - 4];
        client.read_exact(&mut words).await?;
        if words[..4] == 80_877_103_u32.to_be_bytes() {
            // It speaks no TLS.
            client.write_all(b"N").await?;
            continue;
        }
        let text = String::from_utf8_lossy(&words).into_owned();
        let refused = ["extra_float_digits", "options"].iter().find(|name| text.contains(**name));
        if let Some(name) = refused.filter(|_| !text.contains("application_name")) {
            return Err(io::Error::other(format!("a pooler refuses {name}")));
        }
        break;
    }
    // Authenticated, and ready.
    client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await?;
    let mut held: Option<TcpStream> = None;
    loop {
        let (kind, bytes) = message(&mut client).await?;
        if kind == b'X' {
            return Ok(());
        }
        let mut server = match held.take() {
            Some(server) => server,
            None => idle.lock().expect("no panic").pop_front().expect("a session is idle"),
        };
        server.write_all(&bytes).await?;
        // Only these two are answered by readiness.
        let is_answered = kind == b'S' || kind == b'Q';
        held = if !is_answered || answer(&mut server, &mut client).await? {
            Some(server)
        } else {
            idle.lock().expect("no panic").push_back(server);
            None
        };
    }
}

/// Passes on what the server says until it is ready. Tells whether it is within a transaction.
async fn answer(server: &mut TcpStream, client: &mut TcpStream) -> io::Result<bool> {
    loop {
        let (kind, bytes) = message(server).await?;
        client.write_all(&bytes).await?;
        if kind == b'Z' {
            return Ok(bytes[5] != b'I');
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_a_pooler_works_and_has_no_events() {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", pooler(20).await);
    let store = set_up(Config::new(&url).schema(fresh()).pooler(true)).await;
    let capabilities = store.describe(soon()).await.expect("described").capabilities;
    assert!(!capabilities.events && !capabilities.shared_events);
    let error = store.watch(soon(), Watch::default()).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for _ in 0..10 {
        let added = add(&store, jobs(4)).await;
        let leases = claim(&store, 3).await.jobs;
        assert_eq!(leases.len(), 3);
        assert_eq!(settle(&store, &leases, &SUCCEED).await, [Answer::Applied; 3]);
        let amend =
            Amend { select: Select::Ids(added[3..].to_vec()), action: Action::Cancel, preview: false };
        store.amend(soon(), amend).await.expect("amended");
        assert_eq!(find(&store, ids(&leases)[0]).await.state, State::Succeeded);
        assert_eq!(find(&store, added[3]).await.state, State::Cancelled);
    }
    assert_eq!(counts(&store).await.total(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_nobody_told_of_is_refused_by_a_message_that_says_so() {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", pooler(20).await);
    let schema = fresh();
    set_up(Config::new(&url).schema(&schema).pooler(true)).await;
    let opening = Postgres::with(Config::new(format!("{url}&application_name=x")).schema(&schema)).await;
    let outcome = match opening {
        Ok(store) => {
            store.enqueue(soon(), leasehold_core::backend::Enqueue { jobs: jobs(1) }).await.map(drop)
        }
        Err(error) => Err(error),
    };
    let error = outcome.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("pooler=true"), "{error}");
}
