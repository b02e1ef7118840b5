//! Vacuums of what claims and prunings leave behind.
//!
//! A claim takes rows away from the head of an index. Until a vacuum has been there, every later claim walks over the
//! dead entries; and the server's own vacuums come by once a minute, unless somebody set them to come more often. So
//! whoever claims much has the two tables that jobs only pass through vacuumed, in the background. The others are vacuumed
//! too once a good part of them is dead: at ten thousand jobs a second that are not kept, a minute makes a gigabyte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::time::timeout;

use crate::error::Done;
use crate::session::Db;

/// After so many jobs that a handle claimed: enough that a vacuum, of 50 ms or so, costs each of them some microseconds.
const EVERY: usize = 20_000;
/// How long one may take. A large table on a slow disk takes its time, and what is cut off has to begin again.
const PATIENCE: Duration = Duration::from_hours(1);
/// Another vacuum that is under way does as well. Whoever may not vacuum them gets a warning from the server.
const VACUUM: &str =
    "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) leasehold.waiting, leasehold.slots";
/// The server's own rule, but that it looks once a minute: a fifth is dead, and more than some.
const DEAD: &str =
    "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE relid = 'leasehold.jobs'::regclass";
const VACUUM_ALL: &str =
    "VACUUM (SKIP_LOCKED, TRUNCATE OFF) leasehold.jobs, leasehold.ended, leasehold.claims";

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    claimed: AtomicUsize,
    clears_passages: AtomicBool,
    clears_all: AtomicBool,
    /// Dead rows that the latest vacuum could not remove.
    left: AtomicI64,
}

/// Notes that so many jobs were claimed.
pub(crate) fn claimed(db: &Arc<Db>, jobs: usize) {
    let Upkeep { claimed, clears_passages, clears_all, .. } = &db.upkeep;
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

/// Claims are looked through as well, so that they are forgotten even if nobody takes lost leases back.
async fn clear_passages(db: &Db) -> Done<()> {
    let mut conn = unhurried(db).await?;
    if !db.pooler {
        let hour = db.now().map_or_else(|| "leasehold.hour()".into(), |hour| hour.to_string());
        let look_through = format!("SELECT leasehold.look_through_all({hour})");
        conn.execute(AssertSqlSafe(db.in_schema(&look_through))).await?;
    }
    conn.execute(AssertSqlSafe(db.in_schema(VACUUM))).await?;
    Ok(())
}

/// What an old transaction keeps from being removed is no reason to try again until there is as much again.
async fn clear_all(db: &Db) -> Done<()> {
    let mut conn = unhurried(db).await?;
    let is_left = db.upkeep.left.load(Ordering::Relaxed);
    if dead(db, &mut conn).await?.is_some_and(|(dead, alive)| dead - is_left > 20_000 + alive / 5) {
        conn.execute(AssertSqlSafe(db.in_schema(VACUUM_ALL))).await?;
        let left = dead(db, &mut conn).await?.map_or(0, |(dead, _)| dead);
        db.upkeep.left.store(left, Ordering::Relaxed);
    }
    Ok(())
}

/// How many rows of jobs are dead, and how many are not.
async fn dead(db: &Db, conn: &mut PgConnection) -> Done<Option<(i64, i64)>> {
    let found = conn.fetch_optional(AssertSqlSafe(db.in_schema(DEAD))).await?;
    Ok(found.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
}

/// A connection whose statements may take long, beside those that calls wait for.
async fn unhurried(db: &Db) -> Done<PgConnection> {
    let mut conn = db.pool.connect().await?;
    if !db.pooler {
        conn.execute("SET statement_timeout = 0").await?;
    }
    Ok(conn)
}
