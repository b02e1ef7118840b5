//! Keeps capped logs: see `Backend::append_logs` and `read_logs`.
//!
//! What is kept of each log is counted in its *head*, so that appending looks at no line but those that it adds and
//! those that fall to a cap (clause L1).

use std::collections::HashMap;

use futures::TryStreamExt;
use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{
    Answer, AppendLogs, Event, Level, LogAppend, LogLine, LogPage, LogSource, NewLine, ReadLogs,
};
use leasehold_core::{JobId, QueueName, Timestamp, WorkerId};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use crate::error::Done;
use crate::record::{self, Brief};
use crate::writer::Session;

/// A line to be written.
struct Line<'a> {
    job: Uuid,
    worker: Option<Uuid>,
    attempt: i64,
    at: Timestamp,
    level: Level,
    message: &'a str,
}

/// What is kept of a log, and which lines of the present lease were taken in already.
#[derive(Debug, Default, Clone, Copy)]
struct Head {
    lines: i64,
    bytes: i64,
    claim: Option<Uuid>,
    position: i64,
}

pub(crate) async fn append_logs(session: &mut Session, request: AppendLogs) -> Done<Vec<Answer>> {
    let ids: Vec<_> = request.appends.iter().map(|append| append.job).collect();
    let jobs = record::load(&mut session.conn, &ids).await?;
    let mut heads = heads(&mut session.conn, &ids).await?;
    let mut lines = Vec::new();
    let mut answers = Vec::with_capacity(ids.len());
    for append in &request.appends {
        let claim = *append.token.claim(append.job).as_uuid();
        answers.push(match jobs.get(&append.job) {
            Some(job) if job.state == 3 && job.claim == Some(claim) => {
                let new = new_lines(heads.entry(append.job).or_default(), claim, append);
                lines.extend(new.iter().map(|line| (job, written(job, line, session.now))));
                if new.is_empty() && !append.lines.is_empty() {
                    Answer::AlreadyApplied
                } else {
                    Answer::Applied
                }
            }
            _ => Answer::Lost,
        });
    }
    let (jobs, lines): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    insert(&mut session.conn, &lines).await?;
    keep(session, &heads, lines.iter().map(|line| size(line.message)).sum()).await?;
    for job in jobs {
        let Ok(queue) = QueueName::new(&job.queue) else { continue };
        session.tell(|| Event::Logged { job: JobId::from_uuid(job.id), queue });
    }
    Ok(answers)
}

/// Takes in the log of a job that has come from another store.
pub(crate) async fn take_in(session: &mut Session, job: JobId, lines: &[LogLine]) -> Done<()> {
    if lines.is_empty() {
        return Ok(());
    }
    insert(&mut session.conn, &lines.iter().map(|line| kept(job, line)).collect::<Vec<_>>()).await?;
    let bytes = lines.iter().map(|line| size(&line.message)).sum();
    let head = Head { lines: lines.len() as i64, bytes, ..Head::default() };
    keep(session, &HashMap::from([(job, head)]), bytes).await
}

fn kept(job: JobId, line: &LogLine) -> Line<'_> {
    let LogLine { attempt, worker, at, level, message, .. } = line;
    let worker = worker.map(|worker| *worker.as_uuid());
    Line { job: *job.as_uuid(), worker, attempt: (*attempt).into(), at: *at, level: *level, message }
}

fn written<'a>(job: &Brief, line: &'a NewLine, at: Timestamp) -> Line<'a> {
    let NewLine { level, message } = line;
    Line { job: job.id, worker: job.worker, attempt: job.attempt, at, level: *level, message }
}

/// What a line counts for at the caps: its message, and 64 bytes so that empty lines are bounded too.
fn size(message: &str) -> i64 {
    i64::try_from(message.len()).unwrap_or(i64::MAX).saturating_add(64)
}

/// The lines that were not taken in from this lease before (clause E2).
fn new_lines<'a>(head: &mut Head, claim: Uuid, append: &'a LogAppend) -> &'a [NewLine] {
    if head.claim != Some(claim) {
        (head.claim, head.position) = (Some(claim), 0);
    }
    let start = i64::try_from(append.position).unwrap_or(i64::MAX);
    let known = usize::try_from(head.position.saturating_sub(start)).unwrap_or(0).min(append.lines.len());
    head.position = head.position.max(start.saturating_add_unsigned(append.lines.len() as u64));
    let new = &append.lines[known..];
    head.lines += new.len() as i64;
    head.bytes += new.iter().map(|line| size(&line.message)).sum::<i64>();
    new
}

async fn heads(conn: &mut SqliteConnection, ids: &[JobId]) -> Done<HashMap<JobId, Head>> {
    let rows: Vec<(Uuid, i64, i64, Option<Uuid>, i64)> = sqlx::query_as(
        "SELECT source, lines, bytes, claim, position FROM leasehold_log_heads
         WHERE source IN (SELECT unhex(value) FROM json_each(?))",
    )
    .bind(record::id_list(ids))
    .fetch_all(conn)
    .await?;
    let head = |(source, lines, bytes, claim, position)| {
        (JobId::from_uuid(source), Head { lines, bytes, claim, position })
    };
    Ok(rows.into_iter().map(head).collect())
}

async fn insert(conn: &mut SqliteConnection, lines: &[Line<'_>]) -> Done<()> {
    for chunk in record::chunks(lines.len()) {
        let sql = format!(
            "INSERT INTO leasehold_logs (job, worker, attempt, at, level, message, bytes) VALUES {}",
            record::places(chunk.len(), 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for line in &lines[chunk] {
            query = query.bind(line.job).bind(line.worker).bind(line.attempt).bind(line.at.as_millis());
            query = query.bind::<&str>(line.level.into()).bind(line.message).bind(size(line.message));
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

/// Writes the heads and drops what exceeds the caps (clause L1).
async fn keep(session: &mut Session, heads: &HashMap<JobId, Head>, added: i64) -> Done<()> {
    let caps = session.caps;
    let cap = |cap: u64| i64::try_from(cap).unwrap_or(i64::MAX);
    for (job, head) in heads {
        write_head(&mut session.conn, *job, head).await?;
        let (lines, bytes) = (head.lines - cap(caps.job_lines), head.bytes - cap(caps.job_bytes));
        trim(&mut session.conn, Some(*job), lines, bytes).await?;
    }
    let stored: i64 = sqlx::query_scalar(
        "UPDATE leasehold_log_heads SET bytes = bytes + ? WHERE source = x'' RETURNING bytes",
    )
    .bind(added)
    .fetch_one(&mut session.conn)
    .await?;
    trim(&mut session.conn, None, 0, stored - cap(caps.store_bytes)).await
}

async fn write_head(conn: &mut SqliteConnection, job: JobId, head: &Head) -> Done<()> {
    sqlx::query(
        "INSERT INTO leasehold_log_heads (source, lines, bytes, claim, position) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET lines = ?2, bytes = ?3, claim = ?4, position = ?5",
    )
    .bind(*job.as_uuid())
    .bind(head.lines)
    .bind(head.bytes)
    .bind(head.claim)
    .bind(head.position)
    .execute(conn)
    .await?;
    Ok(())
}

/// Drops at least so many lines and bytes of a job, or of the whole store: the oldest first.
async fn trim(conn: &mut SqliteConnection, job: Option<JobId>, mut lines: i64, mut bytes: i64) -> Done<()> {
    if lines <= 0 && bytes <= 0 {
        return Ok(());
    }
    let job = job.map(|job| *job.as_uuid());
    let of = if job.is_some() { "job = ?1" } else { "?1 IS NULL" };
    let mut cut = 0;
    {
        let sql = format!("SELECT sequence, bytes FROM leasehold_logs WHERE {of} ORDER BY sequence");
        let mut oldest = sqlx::query_as(AssertSqlSafe(sql)).bind(job).fetch(&mut *conn);
        while let Some((sequence, size)) = oldest.try_next().await? {
            let size: i64 = size;
            (cut, lines, bytes) = (sequence, lines - 1, bytes - size);
            if lines <= 0 && bytes <= 0 {
                break;
            }
        }
    }
    drop_until(conn, job, of, cut).await
}

/// Drops the lines up to `cut`, and remembers in the heads what was dropped (clause L3).
async fn drop_until(conn: &mut SqliteConnection, job: Option<Uuid>, of: &str, cut: i64) -> Done<()> {
    let dropped = format!("FROM leasehold_logs WHERE {of} AND sequence <= ?2");
    let statements = [
        format!(
            "UPDATE leasehold_log_heads SET bytes = bytes - (SELECT coalesce(sum(bytes), 0) {dropped})
             WHERE source = x''"
        ),
        format!(
            "UPDATE leasehold_log_heads AS h
             SET lines = h.lines - d.lines, bytes = h.bytes - d.bytes, trimmed = max(trimmed, d.last)
             FROM (SELECT job, count(*) AS lines, sum(bytes) AS bytes, max(sequence) AS last {dropped} GROUP BY job) AS d
             WHERE source = d.job"
        ),
        format!(
            "INSERT INTO leasehold_log_heads (source, trimmed)
             SELECT worker, max(sequence) {dropped} AND worker IS NOT NULL GROUP BY worker
             ON CONFLICT DO UPDATE SET trimmed = max(trimmed, excluded.trimmed)"
        ),
        format!("DELETE {dropped}"),
    ];
    for sql in statements {
        sqlx::query(AssertSqlSafe(sql)).bind(job).bind(cut).execute(&mut *conn).await?;
    }
    Ok(())
}

pub(crate) async fn read_logs(conn: &mut SqliteConnection, request: ReadLogs) -> Done<LogPage> {
    let (column, source) = match request.source {
        LogSource::Job(job) => ("job", *job.as_uuid()),
        LogSource::Worker(worker) => ("worker", *worker.as_uuid()),
    };
    // The gap and the lines are of one moment.
    let mut conn = sqlx::Connection::begin(conn).await?;
    let after = i64::try_from(request.after).unwrap_or(i64::MAX);
    let trimmed: Option<i64> = sqlx::query_scalar("SELECT trimmed FROM leasehold_log_heads WHERE source = ?")
        .bind(source)
        .fetch_optional(&mut *conn)
        .await?;
    let sql = format!(
        "SELECT sequence, job, attempt, worker, at, level, message FROM leasehold_logs
         WHERE {column} = ? AND sequence > ? ORDER BY sequence LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(source)
        .bind(after)
        .bind(at_most(request.limit))
        .fetch_all(&mut *conn)
        .await?;
    conn.commit().await?;
    let lines = rows.iter().map(line).collect::<Done<_>>()?;
    Ok(LogPage { lines, gap: trimmed.is_some_and(|trimmed| trimmed > after) })
}

fn line(row: &SqliteRow) -> Done<LogLine> {
    Ok(LogLine::new(
        row.try_get::<i64, _>(0)?.cast_unsigned(),
        JobId::from_uuid(row.try_get(1)?),
        row.try_get(2)?,
        row.try_get::<Option<Uuid>, _>(3)?.map(WorkerId::from_uuid),
        Timestamp::from_millis(row.try_get(4)?),
        NewLine::read(row.try_get(5)?, row.try_get::<String, _>(6)?)?,
    ))
}
