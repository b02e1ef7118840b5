//! Keeps capped logs: see `Backend::append_logs` and `read_logs`.
//!
//! What is kept of each log is counted in its *head*, so that appending looks at no line but those that it adds and
//! those that fall to a cap (clause L1). The cap of all logs together is looked at now and then, the more often the
//! smaller it is.

use leasehold_core::backend::{
    Answer, AppendLogs, Arrival, Event, LogAppend, LogLine, LogPage, LogSource, NewLine, ReadLogs,
};
use leasehold_core::{Error, JobId, QueueName, Timestamp, WorkerId};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Done;
use crate::session::{Session, given, rows};

const APPEND: &str = "SELECT n, answer, queue, over FROM leasehold.append_logs(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

pub(crate) async fn append_logs(session: &mut Session<'_>, request: &AppendLogs) -> Done<Vec<Answer>> {
    let db = session.db;
    let appends = &request.appends;
    let of_append = |(append, n): (&LogAppend, i32)| {
        let line = move |(line, place): (NewLine, i64)| (n, place, line);
        append.lines.clone().into_iter().zip(1..).map(line)
    };
    let lines: Vec<_> = appends.iter().zip(1..).flat_map(of_append).collect();
    let size = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let level = |level: leasehold_core::backend::Level| <&str>::from(level).to_owned();
    let found = db
        .query(APPEND)
        .bind(db.now())
        .bind(appends.iter().map(|append| *append.job.as_uuid()).collect::<Vec<_>>())
        .bind(appends.iter().map(|append| *append.token.claim(append.job).as_uuid()).collect::<Vec<_>>())
        .bind(appends.iter().map(|append| size(append.position)).collect::<Vec<_>>())
        .bind(appends.iter().map(|append| rows(append.lines.len())).collect::<Vec<_>>())
        .bind(lines.iter().map(|(n, ..)| *n).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, place, _)| *place).collect::<Vec<_>>())
        .bind(lines.iter().map(|(.., line)| level(line.level)).collect::<Vec<_>>())
        .bind(lines.iter().map(|(.., line)| line.message.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(size(db.caps.job_lines))
        .bind(size(db.caps.job_bytes))
        .bind(size(db.caps.store_bytes).max(1))
        .fetch_all(session.conn())
        .await?;
    let mut answers = vec![Answer::Lost; appends.len()];
    let (mut events, mut over) = (Vec::new(), false);
    for row in &found {
        let n = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        if n == 0 {
            over = row.try_get::<Option<bool>, _>(3)?.unwrap_or(false);
            continue;
        }
        let (Some(append), Some(answer)) = (appends.get(n - 1), answers.get_mut(n - 1)) else { continue };
        *answer = match row.try_get::<i16, _>(1)? {
            1 => Answer::Applied,
            2 => Answer::AlreadyApplied,
            _ => Answer::Lost,
        };
        if *answer == Answer::Applied
            && let Ok(queue) = QueueName::new(row.try_get::<&str, _>(2)?)
        {
            events.push(Event::Logged { job: append.job, queue });
        }
    }
    db.signals.tell(events);
    while over {
        let trim = db.query("SELECT leasehold.trim_logs($1)").bind(size(db.caps.store_bytes));
        over = trim.fetch_one(session.conn()).await?.try_get(0)?;
    }
    Ok(answers)
}

const ADMIT: &str = "SELECT leasehold.admit_logs($1, $2, $3, $4, $5, $6, $7, $8)";

/// Takes in the logs of jobs that have come from another store.
pub(crate) async fn admit(session: &mut Session<'_>, arrivals: &[&Arrival]) -> Done<()> {
    let db = session.db;
    let of = |arrival: &&Arrival| {
        let job = *arrival.job.id.as_uuid();
        arrival.logs.clone().into_iter().map(move |line| (job, line))
    };
    let lines: Vec<(Uuid, LogLine)> = arrivals.iter().flat_map(of).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let size = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let workers = lines.iter().map(|(_, line)| line.worker.map(|worker| *worker.as_uuid()));
    db.query(ADMIT)
        .bind(lines.iter().map(|(job, _)| *job).collect::<Vec<_>>())
        .bind(given(workers.collect()))
        .bind(lines.iter().map(|(_, line)| line.attempt.cast_signed()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, line)| line.at.as_millis()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, line)| <&str>::from(line.level).to_owned()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, line)| line.message.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(size(db.caps.job_lines))
        .bind(size(db.caps.job_bytes))
        .execute(session.conn())
        .await?;
    Ok(())
}

const OF_JOB: &str = "SELECT coalesce((SELECT trimmed FROM leasehold.log_heads WHERE source = $1), 0), l.*
    FROM (SELECT) AS one LEFT JOIN LATERAL (
        SELECT sequence, job, attempt, worker, at, level, message FROM leasehold.logs
        WHERE job = $1 AND sequence > $2 ORDER BY sequence LIMIT $3) AS l ON true ORDER BY l.sequence";
const OF_WORKER: &str = "SELECT coalesce((SELECT trimmed FROM leasehold.log_heads WHERE source = $1), 0), l.*
    FROM (SELECT) AS one LEFT JOIN LATERAL (
        SELECT sequence, job, attempt, worker, at, level, message FROM leasehold.logs
        WHERE worker = $1 AND sequence > $2 ORDER BY sequence LIMIT $3) AS l ON true ORDER BY l.sequence";

pub(crate) async fn read_logs(session: &mut Session<'_>, request: ReadLogs) -> Done<LogPage> {
    let (sql, source) = match request.source {
        LogSource::Job(job) => (OF_JOB, *job.as_uuid()),
        LogSource::Worker(worker) => (OF_WORKER, *worker.as_uuid()),
    };
    let after = i64::try_from(request.after).unwrap_or(i64::MAX);
    let query = session.db.query(sql).bind(source).bind(after).bind(rows(request.limit));
    let found = query.fetch_all(session.conn()).await?;
    let mut page = LogPage::default();
    for row in &found {
        page.gap = row.try_get::<i64, _>(0)? > after;
        page.lines.extend(line(row)?);
    }
    Ok(page)
}

/// The line in a row, which may have none.
fn line(row: &PgRow) -> Done<Option<LogLine>> {
    let Some(sequence) = row.try_get::<Option<i64>, _>(1)? else { return Ok(None) };
    let message = String::from_utf8(row.try_get(7)?).map_err(Error::corrupt)?;
    Ok(Some(LogLine::new(
        sequence.cast_unsigned(),
        JobId::from_uuid(row.try_get(2)?),
        row.try_get::<i32, _>(3)?.cast_unsigned(),
        row.try_get::<Option<Uuid>, _>(4)?.map(WorkerId::from_uuid),
        Timestamp::from_millis(row.try_get(5)?),
        NewLine::read(row.try_get(6)?, message)?,
    )))
}
