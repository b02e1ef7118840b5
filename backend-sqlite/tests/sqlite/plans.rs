use sqlx::{Connection, Row, SqliteConnection};

use crate::{enqueue, jobs, store};

/// The queries that run all the time, as the backend words them but for their lists.
const QUERIES: [(&str, &str); 6] = [
    (
        "claim",
        "SELECT seq FROM leasehold_jobs INDEXED BY leasehold_jobs_waiting
         WHERE lane = 1 AND state <= 2 AND due <= 9 AND attempt < max_attempts
         ORDER BY due, id LIMIT 10",
    ),
    (
        "expired",
        "SELECT seq FROM leasehold_jobs WHERE state = 3 AND lease_until < 9 ORDER BY lease_until LIMIT 10",
    ),
    ("prune", "SELECT seq FROM leasehold_jobs WHERE expires_at < 9 ORDER BY expires_at LIMIT 10"),
    ("list", "SELECT seq FROM leasehold_jobs ORDER BY enqueued_at DESC, id DESC LIMIT 10"),
    ("find", "SELECT seq FROM leasehold_jobs WHERE id = x'00'"),
    ("counts", "SELECT count(*) FROM leasehold_jobs WHERE lane = 1 AND state = 1 AND due <= 9"),
];

#[tokio::test]
async fn no_hot_query_scans_or_sorts_the_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    enqueue(&store, jobs(1_000)).await.unwrap();
    let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    for (name, query) in QUERIES {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
        let rows = sqlx::query(explain).fetch_all(&mut conn).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let bad = |step: &String| {
            (step.starts_with("SCAN leasehold_jobs") && !step.contains("USING"))
                || step.contains("TEMP B-TREE")
        };
        assert!(!plan.iter().any(bad), "{name}: {plan:#?}");
    }
}
