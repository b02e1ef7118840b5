//! Vacuums of what claims and prunings leave behind.
//!
//! A claim takes rows away from the head of an index. Until a vacuum has been there, every later claim walks over the
//! dead entries; and the server's own vacuums come by once a minute, unless somebody set them to come more often. So
//! whoever claims much has the two tables that jobs only pass through vacuumed, in the background. The others are vacuumed
//! too once a good part of them is dead: at ten thousand jobs a second that are not kept, a minute makes a gigabyte.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::Done;
use crate::session::Db;

/// After so many jobs that a handle claimed: enough that a vacuum, of 50 ms or so, costs each of them some microseconds.
const EVERY: usize = 20_000;
/// How long one may take. A large table on a slow disk takes its time, and what is cut off has to begin again.
const PATIENCE: Duration = Duration::from_hours(1);
/// The tables that jobs only pass through.
const PASSAGES: &str = "leasehold.waiting, leasehold.slots";
/// Those in which they stay for a while.
const ALL: &str = "leasehold.jobs, leasehold.ended, leasehold.claims";
/// The first version whose vacuums may be let into all of the server's buffers. In the few kilobytes that they have else,
/// every few pages wait for a flush of the log, and new rows come faster than old ones are cleared.
const LETS_IN: u32 = 160_000;
const STATE: &str = "SELECT n_dead_tup, n_live_tup, vacuum_count FROM pg_stat_user_tables
    WHERE relid = 'leasehold.jobs'::regclass";

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    claimed: AtomicUsize,
    /// Which chores are being done, by their number.
    busy: [AtomicBool; 2],
    /// Dead rows that the latest vacuum could not remove.
    left: AtomicI64,
    chores: Mutex<JoinSet<()>>,
}

impl Upkeep {
    /// Ends what is under way; to be called once connections are lent no more. The server ends a vacuum within a second of
    /// finding nobody there.
    pub(crate) async fn close(&self) {
        let mut chores = std::mem::take(&mut *self.chores.lock().unwrap_or_else(PoisonError::into_inner));
        chores.shutdown().await;
    }
}

/// What is done in the background. Apart, since large tables take longer than claims can wait for the small ones.
#[derive(Debug, Clone, Copy)]
enum Chore {
    Passages,
    All,
}

/// Notes that so many jobs were claimed.
pub(crate) fn claimed(db: &Arc<Db>, jobs: usize) {
    let claimed = &db.upkeep.claimed;
    if claimed.fetch_add(jobs, Ordering::Relaxed) + jobs < EVERY {
        return;
    }
    claimed.store(0, Ordering::Relaxed);
    begin(db, Chore::Passages);
    begin(db, Chore::All);
}

fn begin(db: &Arc<Db>, chore: Chore) {
    let mut chores = db.upkeep.chores.lock().unwrap_or_else(PoisonError::into_inner);
    while chores.try_join_next().is_some() {}
    // Asked while nobody can take the chores away: what comes after that would go on.
    if db.pool.is_closed() || db.upkeep.busy[chore as usize].swap(true, Ordering::Relaxed) {
        return;
    }
    let db = Arc::clone(db);
    chores.spawn(async move {
        let done = async {
            match chore {
                Chore::Passages => clear_passages(&db).await,
                Chore::All => clear_all(&db).await,
            }
        };
        tell(&timeout(PATIENCE, done).await);
        db.upkeep.busy[chore as usize].store(false, Ordering::Relaxed);
    });
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
    vacuum(db, &mut conn, PASSAGES).await
}

/// Clears the tables of jobs by the server's own rule, but that it looks only once a minute: a fifth is dead, and more
/// than some. What an old transaction keeps from being removed is no reason to try again until there is as much again.
async fn clear_all(db: &Db) -> Done<()> {
    let mut conn = unhurried(db).await?;
    let Some(before) = state(db, &mut conn).await? else { return Ok(()) };
    // What another vacuum has removed since is left no more.
    let is_left = db.upkeep.left.fetch_min(before.dead, Ordering::Relaxed).min(before.dead);
    if before.dead - is_left > 20_000 + before.alive / 5 {
        vacuum(db, &mut conn, ALL).await?;
        if let Some(after) = state(db, &mut conn).await?
            && after.vacuums > before.vacuums
        {
            db.upkeep.left.store(after.dead, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Another vacuum that is under way does as well. Whoever may not vacuum them gets a warning from the server.
async fn vacuum(db: &Db, conn: &mut PgConnection, tables: &str) -> Done<()> {
    let lets_in = conn.server_version_num().is_some_and(|version| version >= LETS_IN);
    let buffers = if lets_in { ", BUFFER_USAGE_LIMIT 0" } else { "" };
    let vacuum = format!("VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON{buffers}) {tables}");
    conn.execute(AssertSqlSafe(db.in_schema(&vacuum))).await?;
    Ok(())
}

/// What the server counted of the table of jobs.
struct State {
    /// Rows that are dead.
    dead: i64,
    alive: i64,
    /// Vacuums that somebody asked for and that were not left to another.
    vacuums: i64,
}

async fn state(db: &Db, conn: &mut PgConnection) -> Done<Option<State>> {
    let Some(row) = conn.fetch_optional(AssertSqlSafe(db.in_schema(STATE))).await? else { return Ok(None) };
    Ok(Some(State { dead: row.try_get(0)?, alive: row.try_get(1)?, vacuums: row.try_get(2)? }))
}

/// A connection whose statements may take long, beside those that calls wait for.
async fn unhurried(db: &Db) -> Done<PgConnection> {
    let mut conn = db.pool.connect().await?;
    if !db.pooler {
        conn.execute("SET statement_timeout = 0").await?;
    }
    Ok(conn)
}
