//! What is between a program and its server.

use std::process::{Command, Output};

use leasehold_core::Backend;
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;

use crate::bench::{add, claim, job, set_up, soon};

/// Tells this program that it is the client of a test, and where the server is.
const CLIENT: &str = "LEASEHOLD_TEST_TLS_URL";

/// This very test as another process, which trusts an authority.
fn client(url: &str, authority: &std::path::Path) -> Output {
    let program = std::env::current_exe().expect("this program");
    let mut client = Command::new(program);
    client.args([
        "--exact",
        "wire::tls_is_spoken_with_whom_the_system_trusts_and_with_nobody_else",
        "--nocapture",
    ]);
    client.env(CLIENT, url).env("SSL_CERT_FILE", authority).output().expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_whom_the_system_trusts_and_with_nobody_else() {
    if let Ok(url) = std::env::var(CLIENT) {
        let error = match Redis::with(Config::new(url)).await {
            Ok(store) => {
                store.setup(soon()).await.expect("set up");
                add(&store, vec![job()]).await;
                assert_eq!(claim(&store, 1).await.jobs.len(), 1);
                return println!("spoken");
            }
            Err(error) => error,
        };
        return println!("refused: {error:?}");
    }
    let (server, url) = Server::over_tls().expect("a server");
    let certificates = server.certificates().expect("certificates");
    for (authority, told) in [(certificates.authority(), "spoken"), (certificates.stranger(), "refused: ")] {
        let output = client(&url, &authority);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains(told), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_refuses_every_call_and_ends_its_streams() {
    let server = Server::own_with(&[], &[]).expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let watch = leasehold_core::backend::Watch { queues: None, logs: true };
    let events = store.watch(soon(), watch).await.expect("a stream");
    store.close();
    assert_eq!(futures::StreamExt::collect::<Vec<_>>(events).await, []);
    let error = store.now(soon()).await.expect_err("closed");
    assert_eq!(error.kind(), leasehold_core::ErrorKind::Closed, "{error:?}");
}
