//! Connections that are lent out: a call has one to itself, and gives it back only when it is as good as before.
//!
//! The driver's own pool asks the server after each call whether the connection still works, which costs the server a
//! message per call, and keeps one whose call was dropped half way. Here such a connection is closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// After so long without use it is asked whether a connection still works.
const STALE: Duration = Duration::from_secs(2);

/// What our sessions have set. Plans are made while there are few jobs and kept when there are many, so whatever
/// looks good only on small tables is switched off, and to look at a row is dear. Locks are looked at by statements that
/// each see what was committed before them. A server that lacks a setting is left without it.
const SETTINGS: &str = "SELECT set_config(s.name, s.value, false) FROM (VALUES
    ('statement_timeout', '60000'), ('idle_in_transaction_session_timeout', '60000'),
    ('default_transaction_isolation', 'read committed'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('random_page_cost', '0.1'), ('jit', 'off'),
    ('cpu_tuple_cost', '1'), ('client_connection_check_interval', '1000')
    ) AS s (name, value) WHERE current_setting(s.name, true) IS NOT NULL";

/// The same for one transaction, where a session is not ours alone.
pub(crate) const BEGIN_POOLED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = 60000; SET LOCAL idle_in_transaction_session_timeout = 60000;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL random_page_cost = 0.1;
    SET LOCAL cpu_tuple_cost = 1;
    SET LOCAL jit = off";

#[derive(Debug)]
pub(crate) struct Pool {
    options: PgConnectOptions,
    pooler: bool,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

impl Pool {
    pub(crate) fn new(options: PgConnectOptions, pooler: bool, connections: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { options, pooler, permits, idle: Mutex::default() }
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// A connection that works, as far as can be known.
    pub(crate) async fn lend(&self) -> sqlx::Result<Lent<'_>> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        loop {
            let Some((mut conn, since)) = self.idle().pop() else { break };
            if since.elapsed() < STALE || conn.ping().await.is_ok() {
                return Ok(Lent { conn, pool: self, _permit: permit });
            }
        }
        Ok(Lent { conn: self.connect().await?, pool: self, _permit: permit })
    }

    /// A connection beside those that are lent.
    pub(crate) async fn connect(&self) -> sqlx::Result<PgConnection> {
        let mut conn = self.options.connect().await?;
        if !self.pooler {
            sqlx::raw_sql(SETTINGS).execute(&mut conn).await?;
        }
        Ok(conn)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    /// Lends nothing any more, and closes what is not lent.
    pub(crate) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for (conn, _) in idle {
            // The server finds out in any case.
            let _ = conn.close().await;
        }
    }
}

/// A connection of one call. Dropped, it is closed: nobody knows what it is in the middle of.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    pub(crate) conn: PgConnection,
    pool: &'a Pool,
    _permit: OwnedSemaphorePermit,
}

impl Lent<'_> {
    /// Gives it back for the next call.
    pub(crate) fn give_back(self) {
        // Asked while nobody can take away what is idle: what comes after that would stay open.
        let mut idle = self.pool.idle();
        if !self.pool.is_closed() {
            idle.push((self.conn, Instant::now()));
        }
    }
}
