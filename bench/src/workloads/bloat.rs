use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use indicatif::ProgressBar;
use leasehold_core::backend::Prune;
use leasehold_core::{Backend, Deadline, Keep};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::rounds::claim_all;
use crate::Trouble;
use crate::options::Options;
use crate::report::{Report, Size};
use crate::stores::{Kind, Opened, Stores};
use crate::target::{PATIENCE, batches, expect};

/// How many jobs are in the store at once at most.
const ROUND: usize = 20_000;
/// After which parts of all jobs the tables are measured.
const STAGES: usize = 10;
const BATCH: usize = 500;
const CLAIMERS: usize = 4;

/// How large the tables of PostgreSQL grow while jobs go through them, each of which is removed once it has ended.
pub(crate) async fn run(
    options: &Options,
    stores: &Stores,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Trouble> {
    let opened = stores.open(Kind::Postgres).await?;
    let place = opened.place().ok_or("it is on a server")?;
    let mut conn = PgConnection::connect(&place.at).await?;
    let all = options.jobs(BATCH * ROUND);
    let mut through = 0;
    for stage in 1..=STAGES {
        let begin = tokio::time::Instant::now();
        let before = through;
        while through < all * stage / STAGES {
            progress.set_message(format!("bloat, {through} of {all}"));
            round(&opened).await?;
            through += ROUND;
        }
        let speed = (through - before) as f64 / begin.elapsed().as_secs_f64();
        let tables = sizes(&mut conn, &place.database).await?;
        let size = Size { jobs: through, speed, tables };
        progress.suspend(|| eprintln!("bloat, {size}"));
        report.sizes.push(size);
    }
    opened.close().await
}

async fn round(opened: &Opened) -> Result<(), Trouble> {
    let target = opened.target();
    let mut jobs = batches(ROUND, BATCH)?;
    jobs.iter_mut().flatten().for_each(|job| job.options.retention.succeeded = Keep::For(Duration::ZERO));
    stream::iter(jobs).map(|batch| target.enqueue(batch)).buffer_unordered(2).try_collect::<()>().await?;
    let settled = claim_all(&target, Some(ROUND), CLAIMERS, BATCH).await?;
    expect("claimed once", settled == ROUND)?;
    let store = opened.backend().ok_or("only a backend is pruned")?;
    loop {
        let prune = Prune { limit: 5_000, workers_after: Duration::from_hours(24) };
        if !Backend::prune(store, Deadline::after(PATIENCE), prune).await?.more {
            return Ok(());
        }
    }
}

/// Each table of a schema and how many bytes it takes with its indexes, the largest first.
async fn sizes(conn: &mut PgConnection, schema: &str) -> Result<Vec<(String, i64)>, Trouble> {
    let sizes = format!(
        "SELECT relname::text, pg_total_relation_size(oid) FROM pg_class
         WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' ORDER BY 2 DESC, 1"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sizes)).fetch_all(conn).await?)
}
