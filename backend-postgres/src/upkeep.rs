//! Vacuums of what claims and prunings leave behind.
//!
//! A claim takes rows away from the head of an index. Until a vacuum has been there, every later claim walks over the
//! dead entries; and the server's own vacuums come by once a minute, unless somebody set them to come more often. So
//! whoever claims much has the two tables that jobs only pass through vacuumed, in the background. The others are vacuumed
//! too once a good part of them is dead: at ten thousand jobs a second that are not kept, a minute makes a gigabyte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::timeout;

use crate::error::Done;
use crate::session::Db;

/// After so many jobs that a handle claimed: enough that a vacuum, of 50 ms or so, costs each of them some microseconds.
const EVERY: usize = 20_000;
/// How long one may take, on a server that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Another vacuum that is under way does as well. Whoever may not vacuum them gets a warning from the server.
const VACUUM: &str =
    "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) leasehold.waiting, leasehold.slots";
/// The server's own rule, but that it looks once a minute: a fifth is dead, and more than some.
const HAS_DEAD: &str = "SELECT FROM pg_stat_user_tables WHERE relid = 'leasehold.jobs'::regclass AND n_dead_tup > 20000 + n_live_tup / 5";
const VACUUM_ALL: &str =
    "VACUUM (SKIP_LOCKED, TRUNCATE OFF) leasehold.jobs, leasehold.ended, leasehold.claims";
/// More claims are looked through than were made, so that none is left even if nobody takes lost leases back.
const LOOK_THROUGH: &str = "SELECT FROM leasehold.look_through(coalesce($1, leasehold.hour()), 40000)";

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    claimed: AtomicUsize,
    is_at_work: AtomicBool,
}

/// Notes that so many jobs were claimed.
pub(crate) fn claimed(db: &Arc<Db>, jobs: usize) {
    let Upkeep { claimed, is_at_work } = &db.upkeep;
    if claimed.fetch_add(jobs, Ordering::Relaxed) + jobs < EVERY || is_at_work.swap(true, Ordering::Relaxed) {
        return;
    }
    claimed.store(0, Ordering::Relaxed);
    let db = Arc::clone(db);
    tokio::spawn(async move {
        match timeout(PATIENCE, vacuum(&db)).await {
            Ok(Ok(())) => {}
            // The server's own will come by.
            outcome => tracing::debug!(?outcome, "what claims left was not vacuumed"),
        }
        db.upkeep.is_at_work.store(false, Ordering::Relaxed);
    });
}

async fn vacuum(db: &Db) -> Done<()> {
    let mut lent = db.pool.lend().await?;
    db.query(LOOK_THROUGH).bind(db.now()).execute(&mut lent.conn).await?;
    sqlx::raw_sql(AssertSqlSafe(db.in_schema(VACUUM))).execute(&mut lent.conn).await?;
    if db.query(HAS_DEAD).fetch_optional(&mut lent.conn).await?.is_some() {
        sqlx::raw_sql(AssertSqlSafe(db.in_schema(VACUUM_ALL))).execute(&mut lent.conn).await?;
    }
    lent.give_back();
    Ok(())
}
