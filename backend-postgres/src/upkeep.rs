//! Vacuums of what claims and prunings leave behind.
//!
//! A claim takes rows away from the head of an index. Until a vacuum has been there, every later claim walks over the
//! dead entries; and the server's own vacuums come by once a minute, unless somebody set them to come more often. So
//! whoever claims much has the two tables that jobs only pass through vacuumed, in the background. The others are vacuumed
//! too once a good part of them is dead: at ten thousand jobs a second that are not kept, a minute makes a gigabyte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor};
use tokio::time::timeout;

use crate::error::Done;
use crate::pool::Lent;
use crate::session::Db;

/// After so many jobs that a handle claimed: enough that a vacuum, of 50 ms or so, costs each of them some microseconds.
const EVERY: usize = 20_000;
/// How long one may take. A large table on a slow disk takes its time, and what is cut off has to begin again.
const PATIENCE: Duration = Duration::from_hours(1);
/// Another vacuum that is under way does as well. Whoever may not vacuum them gets a warning from the server.
const VACUUM: &str =
    "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) leasehold.waiting, leasehold.slots";
/// The server's own rule, but that it looks once a minute: a fifth is dead, and more than some.
const HAS_DEAD: &str = "SELECT FROM pg_stat_user_tables WHERE relid = 'leasehold.jobs'::regclass AND n_dead_tup > 20000 + n_live_tup / 5";
const VACUUM_ALL: &str =
    "VACUUM (SKIP_LOCKED, TRUNCATE OFF) leasehold.jobs, leasehold.ended, leasehold.claims";

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    claimed: AtomicUsize,
    clears_passages: AtomicBool,
    clears_all: AtomicBool,
}

/// Notes that so many jobs were claimed.
pub(crate) fn claimed(db: &Arc<Db>, jobs: usize) {
    let Upkeep { claimed, clears_passages, clears_all } = &db.upkeep;
    if claimed.fetch_add(jobs, Ordering::Relaxed) + jobs < EVERY {
        return;
    }
    claimed.store(0, Ordering::Relaxed);
    if !clears_passages.swap(true, Ordering::Relaxed) {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            tell(&timeout(PATIENCE, clear_passages(&db)).await);
            db.upkeep.clears_passages.store(false, Ordering::Relaxed);
        });
    }
    // Apart, since large tables take longer than claims can wait for the small ones.
    if !clears_all.swap(true, Ordering::Relaxed) {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            tell(&timeout(PATIENCE, clear_all(&db)).await);
            db.upkeep.clears_all.store(false, Ordering::Relaxed);
        });
    }
}

fn tell<E: std::fmt::Debug>(outcome: &Result<Done<()>, E>) {
    if !matches!(outcome, Ok(Ok(()))) {
        // The server's own vacuums will come by.
        tracing::debug!(?outcome, "what claims left was not vacuumed");
    }
}

/// Looks through more claims than were made, so that none is left even if nobody takes lost leases back.
async fn clear_passages(db: &Db) -> Done<()> {
    let mut lent = unhurried(db).await?;
    let hour = db.now().map_or_else(|| "leasehold.hour()".into(), |hour| hour.to_string());
    let look_through = format!("SELECT FROM leasehold.look_through({hour}, {})", 2 * EVERY);
    lent.conn.execute(AssertSqlSafe(db.in_schema(&look_through))).await?;
    lent.conn.execute(AssertSqlSafe(db.in_schema(VACUUM))).await?;
    Ok(())
}

async fn clear_all(db: &Db) -> Done<()> {
    let mut lent = unhurried(db).await?;
    if lent.conn.fetch_optional(AssertSqlSafe(db.in_schema(HAS_DEAD))).await?.is_some() {
        lent.conn.execute(AssertSqlSafe(db.in_schema(VACUUM_ALL))).await?;
    }
    Ok(())
}

/// A connection whose statements may take long. It is not given back, for it would stay so.
async fn unhurried(db: &Db) -> Done<Lent<'_>> {
    let mut lent = db.pool.lend().await?;
    if !db.pooler {
        lent.conn.execute("SET statement_timeout = 0").await?;
    }
    Ok(lent)
}
