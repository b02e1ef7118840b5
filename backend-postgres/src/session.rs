//! The server as operations see it: a connection, SQL for our schema, the hour, and how a call begins and ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::backend::LogCaps;
use leasehold_core::{Clock, Deadline, Result, Timestamp, fail_point};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{sleep, timeout_at};

use crate::config::Config;
use crate::error::{Done, Fault, Sent, late, no_answer};
use crate::pool::{BEGIN_POOLED, Lent, Pool};
use crate::watch::{Ears, Signals};

/// A statement that values are being bound to.
pub(crate) type Statement = Query<'static, Postgres, PgArguments>;

/// A server and a schema on it.
pub(crate) struct Db {
    pub(crate) pool: Pool,
    pub(crate) signals: Signals,
    pub(crate) ears: Ears,
    pub(crate) schema: String,
    pub(crate) pooler: bool,
    pub(crate) caps: LogCaps,
    prefix: String,
    clock: Option<Arc<dyn Clock>>,
    written: Mutex<HashMap<&'static str, Arc<str>>>,
}

/// What a call does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: made again, it is as if it had been made once.
    Reads,
    /// One statement.
    Writes,
    /// Several statements, in a transaction.
    WritesInSteps,
}

impl Db {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            pool: Pool::new(config.options()?, config.pooler, config.connections),
            signals: Signals::default(),
            ears: Ears::default(),
            schema: config.schema.clone(),
            pooler: config.pooler,
            caps: config.log_caps,
            prefix: config.prefix(),
            clock: config.clock.clone(),
            written: Mutex::default(),
        })
    }

    /// The hour of a manual clock; none where the server's own counts.
    pub(crate) fn now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now().as_millis())
    }

    /// SQL of ours as it is for our schema. What users say is never a part of it.
    pub(crate) fn sql(&self, text: &'static str) -> AssertSqlSafe<Arc<str>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = written.entry(text).or_insert_with(|| self.in_schema(text).into());
        AssertSqlSafe(Arc::clone(sql))
    }

    /// The same of a text that is needed once.
    pub(crate) fn in_schema(&self, text: &str) -> String {
        text.replace("leasehold.", &self.prefix)
    }

    pub(crate) fn query(&self, text: &'static str) -> Statement {
        sqlx::query(self.sql(text)).persistent(!self.pooler)
    }
}

/// A call under way: by when it must have answered, and what it has sent.
#[derive(Debug)]
pub(crate) struct Call {
    deadline: Deadline,
    kind: Kind,
    sent: AtomicBool,
}

impl Call {
    pub(crate) fn new(deadline: Deadline, kind: Kind) -> Self {
        Self { deadline, kind, sent: AtomicBool::new(false) }
    }

    /// Does the work within the deadline (clause E3), and tells what became of it (clause E1).
    pub(crate) async fn bound<T>(&self, work: impl Future<Output = Done<T>>) -> Result<T> {
        if self.deadline.has_passed() {
            return Err(late());
        }
        match timeout_at(self.deadline.instant(), work).await {
            Ok(outcome) => outcome.map_err(|fault| fault.told(self.sent())),
            Err(_) => Err(no_answer(self.sent())),
        }
    }

    /// A connection for one attempt at the work.
    pub(crate) async fn begin<'a>(&self, db: &'a Db) -> Done<Session<'a>> {
        let mut session = Session { db, lent: db.pool.lend().await?, in_transaction: false };
        if self.deadline.has_passed() {
            session.lent.give_back();
            return Err(late().into());
        }
        if db.pooler {
            sqlx::raw_sql(BEGIN_POOLED).execute(session.conn()).await?;
        } else if self.kind == Kind::WritesInSteps {
            sqlx::raw_sql("BEGIN").execute(session.conn()).await?;
        }
        session.in_transaction = db.pooler || self.kind == Kind::WritesInSteps;
        if self.kind != Kind::Reads {
            fail_point!("write::before_send");
            self.sent.store(true, Ordering::Relaxed);
        }
        Ok(session)
    }

    /// Ends an attempt. None if the server took it back because of others and it is to be made again.
    pub(crate) async fn end<T>(&self, mut session: Session<'_>, outcome: Done<T>) -> Option<Done<T>> {
        let outcome = match outcome {
            Ok(done) if session.in_transaction => {
                let committed = sqlx::raw_sql("COMMIT").execute(session.conn()).await;
                committed.map(|_| done).map_err(Fault::from)
            }
            Err(fault) if session.in_transaction && fault.leaves_connection_whole() => {
                let undone = sqlx::raw_sql("ROLLBACK").execute(session.conn()).await;
                Err(undone.err().map_or(fault, Fault::from))
            }
            outcome => outcome,
        };
        match &outcome {
            Ok(_) => {
                session.lent.give_back();
                if self.kind != Kind::Reads {
                    fail_point!("write::acted");
                }
            }
            Err(fault) => {
                let again = fault.may_begin_again();
                if fault.leaves_connection_whole() {
                    session.lent.give_back();
                }
                if again && !self.deadline.has_passed() {
                    sleep(Duration::from_micros(fastrand::u64(500..5_000))).await;
                    return None;
                }
            }
        }
        Some(outcome)
    }

    fn sent(&self) -> Sent {
        if self.sent.load(Ordering::Relaxed) { Sent::Something } else { Sent::Nothing }
    }
}

/// A connection for one attempt at a call.
pub(crate) struct Session<'a> {
    pub(crate) db: &'a Db,
    lent: Lent<'a>,
    in_transaction: bool,
}

impl Session<'_> {
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.lent.conn
    }
}

/// A column of which some row has something: the server reads no array of nothing but nulls.
pub(crate) fn given<T>(column: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    column.iter().any(Option::is_some).then_some(column)
}

/// A span in whole milliseconds; parts round up, so that nothing is early.
pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// How many rows at most.
pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A count as the server keeps it; never negative.
pub(crate) fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(crate) fn moment(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}
