//! Takes jobs in: see `Backend::enqueue`.

use std::collections::{HashMap, HashSet};

use leasehold_core::authoring::stored::{self, millis};
use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{Error, ErrorKind, JobId, NewJob, Payload, State, Timestamp, UniqueKey, UniqueScope};
use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use crate::error::{Done, Fault};
use crate::record::{self, Lane, UNIQUE_FOR, UNIQUE_UNTIL_CLAIMED, UNIQUE_UNTIL_FINISHED};
use crate::replace;
use crate::writer::Session;

pub(crate) async fn enqueue(session: &mut Session, request: Enqueue) -> Done<Vec<Enqueued>> {
    let answers = insert(&mut session.conn, &request.jobs, session.now).await?;
    for (job, _) in request.jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_created()) {
        session.tell_state(job.id, job.queue.as_str(), State::waiting(job.due.by(session.now), session.now));
    }
    let replaced = |answer: &&Enqueued| matches!(answer.answer, EnqueueAnswer::Replaced);
    if session.is_watched() {
        let replaced: Vec<JobId> = answers.iter().filter(replaced).map(|answer| answer.job).collect();
        let jobs = record::load(&mut session.conn, &replaced).await?;
        jobs.values().for_each(|job| job.tell(session));
    }
    Ok(answers)
}

/// Inserts jobs on the caller's own connection, all or none of them (clauses P3, P5).
///
/// Without a transaction of the caller's the savepoint is one, so that no other writer comes between.
pub(crate) async fn insert_whole(
    conn: &mut SqliteConnection,
    jobs: &[NewJob],
    now: Timestamp,
) -> Done<Vec<Enqueued>> {
    sqlx::query("SAVEPOINT leasehold").execute(&mut *conn).await?;
    let mut outcome = insert(conn, jobs, now).await;
    if outcome.is_ok() {
        let released = sqlx::query("RELEASE leasehold").execute(&mut *conn).await;
        outcome = released.map_err(Fault::from).and(outcome);
    }
    if outcome.is_err() {
        // It fails if SQLite has taken the whole transaction back already.
        let _ = sqlx::query("ROLLBACK TO leasehold; RELEASE leasehold").execute(conn).await;
    }
    outcome
}

/// Inserts jobs inside a transaction.
pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    jobs: &[NewJob],
    now: Timestamp,
) -> Done<Vec<Enqueued>> {
    free_keys(conn, &keys(jobs), now).await?;
    let mut answers = Vec::with_capacity(jobs.len());
    for run in jobs.chunk_by(|a, b| replace::is_plain(a) && replace::is_plain(b)) {
        let newcomer = run.first().filter(|job| !replace::is_plain(job));
        let answer = match newcomer {
            Some(job) => replace::replace(conn, job, now).await?,
            None => None,
        };
        match answer {
            Some(answer) => answers.push(answer),
            None => answers.append(&mut insert_run(conn, run, now).await?),
        }
    }
    Ok(answers)
}

/// Inserts jobs none of which replaces another.
pub(crate) async fn insert_run(
    conn: &mut SqliteConnection,
    jobs: &[NewJob],
    now: Timestamp,
) -> Done<Vec<Enqueued>> {
    let lanes = record::lanes(conn, &jobs.iter().map(lane).collect()).await?;
    let mut answers = Vec::with_capacity(jobs.len());
    let mut next: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) + 1 FROM leasehold_jobs")
        .fetch_one(&mut *conn)
        .await?;
    for chunk in record::chunks(jobs.len()) {
        let (chunk, first) = (&jobs[chunk], next);
        next += chunk.len() as i64;
        let inserted = insert_jobs(conn, chunk, first, &lanes, now).await?;
        if inserted == chunk.len() as u64 {
            insert_payloads(conn, &(first..).zip(chunk).collect::<Vec<_>>()).await?;
            answers.extend(chunk.iter().map(|job| Enqueued { job: job.id, answer: EnqueueAnswer::Created }));
        } else {
            answers.extend(insert_rest(conn, chunk, first).await?);
        }
    }
    Ok(answers)
}

fn keys(jobs: &[NewJob]) -> Vec<&UniqueKey> {
    jobs.iter().filter_map(|job| Some(&job.options.unique.as_ref()?.key)).collect()
}

/// Makes keys available whose period is over (clause P4).
pub(crate) async fn free_keys(conn: &mut SqliteConnection, keys: &[&UniqueKey], now: Timestamp) -> Done<()> {
    if !keys.is_empty() {
        sqlx::query(
            "UPDATE leasehold_jobs SET unique_key = NULL
             WHERE unique_key IN (SELECT value FROM json_each(?)) AND unique_until < ?",
        )
        .bind(record::list(keys)?)
        .bind(now.as_millis())
        .execute(conn)
        .await?;
    }
    Ok(())
}

fn lane(job: &NewJob) -> Lane {
    Lane { queue: job.queue.clone(), priority: job.options.priority, kind: job.kind.clone() }
}

const COLUMNS: [&str; 17] = [
    "seq",
    "id",
    "lane",
    "state",
    "due",
    "enqueued_at",
    "options",
    "keep_succeeded",
    "tags",
    "max_attempts",
    "lease",
    "limit_key",
    "limit_max",
    "limit_ends",
    "unique_key",
    "unique_scope",
    "unique_until",
];

/// Inserts jobs that are neither there nor kept out by a unique key, and tells how many.
async fn insert_jobs(
    conn: &mut SqliteConnection,
    jobs: &[NewJob],
    first: i64,
    lanes: &HashMap<Lane, i64>,
    now: Timestamp,
) -> Done<u64> {
    let sql = format!(
        "INSERT INTO leasehold_jobs ({}) VALUES {} ON CONFLICT DO NOTHING",
        COLUMNS.join(", "),
        record::places(jobs.len(), COLUMNS.len())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (seq, job) in (first..).zip(jobs) {
        let (options, due) = (&job.options, job.due.by(now));
        let tags = if options.tags.is_empty() { None } else { Some(serde_json::to_string(&options.tags)?) };
        let (limit, unique) = (options.limit.as_ref(), options.unique.as_ref());
        let (scope, until) = unique.map(|unique| scope(unique.scope, now)).unwrap_or_default();
        query = query
            .bind(seq)
            .bind(*job.id.as_uuid())
            .bind(lanes.get(&lane(job)))
            .bind(record::code(State::waiting(due, now)))
            .bind(due.as_millis())
            .bind(now.as_millis())
            .bind(stored::options_text(options)?)
            .bind(options.retention.succeeded.span().map(millis))
            .bind(tags)
            .bind(options.max_attempts)
            .bind(options.lease.map(millis))
            .bind(limit.map(|limit| limit.key.as_str()))
            .bind(limit.map(|limit| limit.max))
            .bind(limit.filter(|limit| !limit.when_full.is_wait()).map(|_| true))
            .bind(unique.map(|unique| unique.key.as_str()))
            .bind(scope)
            .bind(until);
    }
    Ok(query.execute(conn).await?.rows_affected())
}

/// How a scope is written, and until when it lasts at most.
pub(crate) fn scope(scope: UniqueScope, now: Timestamp) -> (Option<i64>, Option<i64>) {
    match scope {
        UniqueScope::UntilClaimed => (Some(UNIQUE_UNTIL_CLAIMED), None),
        UniqueScope::UntilFinished => (Some(UNIQUE_UNTIL_FINISHED), None),
        UniqueScope::For(span) => (Some(UNIQUE_FOR), Some(now.plus(span).as_millis())),
    }
}

/// Puts another payload in the place of a job's.
pub(crate) async fn replace_payload(conn: &mut SqliteConnection, seq: i64, payload: &Payload) -> Done<()> {
    record::insert_blobs(conn, "INSERT OR REPLACE INTO leasehold_payloads VALUES", &[(seq, payload)]).await
}

async fn insert_payloads(conn: &mut SqliteConnection, jobs: &[(i64, &NewJob)]) -> Done<()> {
    let blobs: Vec<_> = jobs.iter().map(|(seq, job)| (*seq, &job.payload)).collect();
    record::insert_blobs(conn, "INSERT INTO leasehold_payloads VALUES", &blobs).await
}

/// Of a chunk that did not get in whole, finishes those jobs that did and finds out why the others did not.
async fn insert_rest(conn: &mut SqliteConnection, jobs: &[NewJob], first: i64) -> Done<Vec<Enqueued>> {
    let created: HashSet<i64> = sqlx::query_scalar("SELECT seq FROM leasehold_jobs WHERE seq >= ?")
        .bind(first)
        .fetch_all(&mut *conn)
        .await?
        .into_iter()
        .collect();
    let landed: Vec<_> = (first..).zip(jobs).filter(|(seq, _)| created.contains(seq)).collect();
    insert_payloads(conn, &landed).await?;
    let existing = existing(conn, jobs).await?;
    let holders = holders(conn, &keys(jobs)).await?;
    let answer = |(seq, job): (i64, &NewJob)| {
        let holder = job.options.unique.as_ref().and_then(|unique| holders.get(&unique.key));
        match holder {
            _ if created.contains(&seq) => Ok(Enqueued { job: job.id, answer: EnqueueAnswer::Created }),
            _ if existing.contains(job.id.as_uuid()) => {
                Ok(Enqueued { job: job.id, answer: EnqueueAnswer::Existing })
            }
            Some(holder) => Ok(Enqueued { job: *holder, answer: EnqueueAnswer::Held }),
            None => Err(Error::new(ErrorKind::Internal, "a job was not taken in for no known reason").into()),
        }
    };
    (first..).zip(jobs).map(answer).collect()
}

/// Which of these jobs are there.
async fn existing(conn: &mut SqliteConnection, jobs: &[NewJob]) -> Done<HashSet<Uuid>> {
    let sql = "SELECT id FROM leasehold_jobs WHERE id IN (SELECT unhex(value) FROM json_each(?))";
    let ids = record::id_list(jobs.iter().map(|job| &job.id));
    Ok(sqlx::query_scalar(sql).bind(ids).fetch_all(conn).await?.into_iter().collect())
}

/// Who holds these unique keys.
pub(crate) async fn holders(
    conn: &mut SqliteConnection,
    keys: &[&UniqueKey],
) -> Done<HashMap<UniqueKey, JobId>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, Uuid)> = sqlx::query_as(
        "SELECT unique_key, id FROM leasehold_jobs WHERE unique_key IN (SELECT value FROM json_each(?))",
    )
    .bind(record::list(keys)?)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|(key, id)| Ok((UniqueKey::new(key)?, JobId::from_uuid(id)))).collect()
}
