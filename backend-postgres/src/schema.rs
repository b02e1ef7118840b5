//! Checks the server, and makes or migrates our schema.

use leasehold_core::backend::Durability;
use leasehold_core::{Error, ErrorKind, Timestamp};
use sqlx::{AssertSqlSafe, Row};

use crate::error::{Done, Fault};
use crate::session::Session;

/// The migrations, in order; the version of a schema is how many it has had.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_tables.sql"),
    include_str!("../migrations/0002_enqueue.sql"),
    include_str!("../migrations/0003_claim.sql"),
    include_str!("../migrations/0004_settle.sql"),
    include_str!("../migrations/0005_upkeep.sql"),
    include_str!("../migrations/0006_logs.sql"),
    include_str!("../migrations/0007_admit.sql"),
];
/// The oldest server whose every feature that we use is there.
const OLDEST: i32 = 130_000;

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) durability: Durability,
}

/// Reads what the server says of itself (clause P1).
pub(crate) async fn facts(session: &mut Session<'_>) -> Done<Facts> {
    const FACTS: &str = "SELECT current_setting('server_version'), current_setting('fsync'),
        current_setting('synchronous_commit')";
    let row = session.db.query(FACTS).fetch_one(session.conn()).await?;
    let (fsync, commit): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
    let durability = match (fsync, commit) {
        (_, "off") => Durability::D0,
        ("off", _) => Durability::D1,
        _ => Durability::D2,
    };
    Ok(Facts { version: row.try_get(0)?, durability })
}

pub(crate) async fn now(session: &mut Session<'_>) -> Done<Timestamp> {
    let now = session.db.now();
    const HOUR: &str = "SELECT coalesce($1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)";
    let row = session.db.query(HOUR).bind(now).fetch_one(session.conn()).await?;
    Ok(Timestamp::from_millis(row.try_get(0)?))
}

/// Refuses a server that is too old, and a schema that is somebody else's or of a newer version (clause B4).
pub(crate) async fn check(session: &mut Session<'_>) -> Done<()> {
    version(session).await.map(drop)
}

/// Makes or migrates the tables, in the call's transaction (clause B4).
pub(crate) async fn setup(session: &mut Session<'_>) -> Done<()> {
    if version(session).await? == Some(MIGRATIONS.len()) {
        return Ok(());
    }
    let schema = session.db.schema.clone();
    // One at a time; who comes second finds what the first has made.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('leasehold setup'), hashtext($1))")
        .persistent(false)
        .bind(&schema)
        .execute(session.conn())
        .await?;
    let there = version(session).await?;
    // Whoever may not make schemas may still have been given one.
    let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .persistent(false)
        .bind(&schema)
        .fetch_one(session.conn())
        .await?;
    if !is_there {
        let name = session.db.in_schema("leasehold.");
        let create = format!("CREATE SCHEMA {}", name.trim_end_matches('.'));
        sqlx::raw_sql(AssertSqlSafe(create)).execute(session.conn()).await?;
    }
    for migration in &MIGRATIONS[there.unwrap_or(0)..] {
        let sql = AssertSqlSafe(session.db.in_schema(migration));
        sqlx::raw_sql(sql).execute(session.conn()).await?;
    }
    let mark = session.db.in_schema("UPDATE leasehold.meta SET version = $1");
    let version = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    sqlx::query(AssertSqlSafe(mark)).persistent(false).bind(version).execute(session.conn()).await?;
    Ok(())
}

/// The version of our tables, none if there are none.
async fn version(session: &mut Session<'_>) -> Done<Option<usize>> {
    const LOOK: &str = "SELECT current_setting('server_version_num')::integer,
        (SELECT array_agg(c.relname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname IN ('meta', 'jobs') AND c.relkind = 'r')";
    let schema = session.db.schema.clone();
    let (server, tables): (i32, Option<Vec<String>>) =
        sqlx::query_as(LOOK).persistent(false).bind(&schema).fetch_one(session.conn()).await?;
    if server < OLDEST {
        let why = format!("the server is older than PostgreSQL {}; use a newer one", OLDEST / 10_000);
        return Err(Error::new(ErrorKind::Incompatible, why).into());
    }
    let tables = tables.unwrap_or_default();
    if tables.is_empty() {
        return Ok(None);
    }
    if tables.len() < 2 {
        return Err(somebody_elses(&schema));
    }
    let read = session.db.in_schema("SELECT version FROM leasehold.meta");
    let version: i32 = sqlx::query_scalar(AssertSqlSafe(read))
        .persistent(false)
        .fetch_one(session.conn())
        .await
        .map_err(|error| if is_strange(&error) { somebody_elses(&schema) } else { error.into() })?;
    let version = usize::try_from(version).unwrap_or(0);
    if version > MIGRATIONS.len() {
        let why = format!(
            "the tables are of version {version}, this program knows up to {}: use a newer program",
            MIGRATIONS.len()
        );
        return Err(Error::new(ErrorKind::Incompatible, why).into());
    }
    Ok(Some(version))
}

/// Whether a table of the name is there and is none of ours.
fn is_strange(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "42703")
        || matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound)
}

fn somebody_elses(schema: &str) -> Fault {
    let why = format!("the schema {schema:?} has tables that are not ours; name another one by `schema=`");
    Error::new(ErrorKind::Incompatible, why).into()
}
