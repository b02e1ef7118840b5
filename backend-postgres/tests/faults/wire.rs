//! What is spoken with the server, and over what.

use leasehold_core::ErrorKind;
use leasehold_postgres::{Config, Postgres};
use leasehold_test_servers::Postgres as Server;

use crate::bench::{SUCCEED, add, claim, connection, jobs, number, set_up, settle};

#[tokio::test(flavor = "multi_thread")]
async fn speaks_tls_with_whom_it_trusts_alone() {
    let server = Server::over_tls().expect("a server");
    let certificates = server.certificates().expect("certificates");
    let url = |mode: &str, authority: &std::path::Path| {
        format!("{}?sslmode={mode}&sslrootcert={}", server.url(), authority.display())
    };
    let trusted = url("verify-full", &certificates.authority());
    let store = set_up(Config::new(&trusted)).await;
    add(&store, jobs(1)).await;
    let leases = claim(&store, 1).await.jobs;
    settle(&store, &leases, &SUCCEED).await;
    let plain = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE a.backend_type = 'client backend' AND NOT s.ssl";
    assert_eq!(number(&mut connection(&trusted).await, plain).await, 0);
    let error = Postgres::with(Config::new(url("verify-full", &certificates.stranger()))).await;
    let error = error.expect_err("a stranger's word");
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    // A server that does not speak it is not spoken to.
    let plain = Server::own().expect("a server");
    let error = Postgres::with(Config::new(format!("{}?sslmode=require", plain.url()))).await;
    let error = error.expect_err("it speaks no TLS");
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}
