//! The cap of all logs together.

use leasehold_core::Backend;
use leasehold_core::backend::{AppendLogs, Level, LogAppend, LogCaps, LogSource, NewLine, ReadLogs};
use leasehold_postgres::Config;

use crate::bench::{SERVER, add, claim, connection, fresh, jobs, number, set_up, soon};

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_lines_of_all_go_when_the_store_is_full_of_them() {
    let schema = fresh();
    let caps = LogCaps { store_bytes: 64 << 10, ..LogCaps::default() };
    let store = set_up(Config::new(SERVER.url()).schema(&schema).log_caps(caps)).await;
    add(&store, jobs(2)).await;
    let leases = claim(&store, 2).await.jobs;
    let append = |lease: usize, position: u64| {
        let line = |n| NewLine { level: Level::Info, message: format!("{n:0>1000}") };
        let lines = (position..position + 10).map(line).collect();
        let (job, token) = (leases[lease].job.id, leases[lease].token);
        AppendLogs { appends: vec![LogAppend { job, token, position, lines }] }
    };
    store.append_logs(soon(), append(0, 0)).await.expect("answers");
    for n in 0..40 {
        store.append_logs(soon(), append(1, 10 * n)).await.expect("answers");
    }
    let mut other = connection(SERVER.url()).await;
    let kept = number(&mut other, format!("SELECT sum(bytes)::bigint FROM {schema}.logs")).await;
    assert!((20 << 10..100 << 10).contains(&kept), "{kept} bytes");
    let counted = number(&mut other, format!("SELECT sum(bytes)::bigint FROM {schema}.log_sizes")).await;
    assert_eq!(counted, kept);
    let heads = number(&mut other, format!("SELECT sum(bytes)::bigint FROM {schema}.log_heads")).await;
    assert_eq!(heads, kept);
    let read = |source| ReadLogs { source, after: 0, limit: 1_000 };
    let first = store.read_logs(soon(), read(LogSource::Job(leases[0].job.id))).await.expect("a page");
    assert!(first.gap && first.lines.is_empty(), "the oldest went: {}", first.lines.len());
    let all = store.read_logs(soon(), read(LogSource::Worker(leases[0].job.worker.expect("a worker")))).await;
    assert!(all.expect("a page").gap);
}
