//! Takes jobs of another store in: see `Backend::admit`.

use leasehold_core::authoring::stored;
use leasehold_core::backend::{Admit, Admitted, Arrival, EnqueueAnswer};
use leasehold_core::{JobRecord, Timestamp};
use sqlx::SqliteConnection;

use crate::enqueue::{free_keys, insert_run, scope};
use crate::error::Done;
use crate::logs;
use crate::record;
use crate::writer::Session;

pub(crate) async fn admit(session: &mut Session, request: Admit) -> Done<Vec<Admitted>> {
    let now = session.now;
    let keys: Vec<_> = request.jobs.iter().filter_map(|arrival| arrival.job.held_key(now)).collect();
    free_keys(&mut session.conn, &keys, now).await?;
    let mut answers = Vec::with_capacity(request.jobs.len());
    for mut arrival in request.jobs {
        arrival.job.look(now);
        let answer = take_in(&mut session.conn, &arrival, now).await?;
        if matches!(answer, Admitted::Created) {
            let Arrival { job, logs } = arrival;
            logs::take_in(session, job.id, &logs).await?;
            session.tell_state(job.id, job.queue.as_str(), job.state);
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Enqueues it at the moment at which it was, with its key only if it holds that, and brings it to where it stands.
async fn take_in(conn: &mut SqliteConnection, arrival: &Arrival, now: Timestamp) -> Done<Admitted> {
    let job = &arrival.job;
    for told in insert_run(conn, &[arrival.newcomer(now)], job.enqueued_at).await? {
        match told.answer {
            EnqueueAnswer::Created => {}
            EnqueueAnswer::Held => return Ok(Admitted::Held(told.job)),
            _ => return Ok(Admitted::Existing),
        }
    }
    bring(conn, job).await?;
    Ok(Admitted::Created)
}

const BRING: &str = "UPDATE leasehold_jobs SET
         state = ?2, reason = ?3, attempt = ?4, crashes = ?5, generation = ?6, started_at = ?7, finished_at = ?8,
         expires_at = ?9, worker = ?10, progress = ?11, history = ?12, error_class = ?13, options = ?14,
         unique_scope = ?15, unique_until = ?16
     WHERE id = ?1 RETURNING seq";

async fn bring(conn: &mut SqliteConnection, job: &JobRecord) -> Done<()> {
    let unique = job.options.unique.as_ref();
    let (scope, until) = unique.map(|unique| scope(unique.scope, job.enqueued_at)).unwrap_or_default();
    let history = if job.history.is_empty() { None } else { Some(serde_json::to_string(&job.history)?) };
    let seq: i64 = sqlx::query_scalar(BRING)
        .bind(*job.id.as_uuid())
        .bind(record::code(job.state))
        .bind(job.reason.map(|reason| reason.to_string()))
        .bind(job.attempt)
        .bind(job.crashes)
        .bind(job.generation)
        .bind(job.started_at.map(Timestamp::as_millis))
        .bind(job.finished_at.map(Timestamp::as_millis))
        .bind(job.expires_at.map(Timestamp::as_millis))
        .bind(job.worker.map(|worker| *worker.as_uuid()))
        .bind(job.progress.as_ref().map(serde_json::to_string).transpose()?)
        .bind(history)
        .bind(job.last_failure().map(|failure| failure.class.as_str()))
        .bind(stored::options_text(&job.options)?)
        .bind(scope)
        .bind(until)
        .fetch_one(&mut *conn)
        .await?;
    let results: Vec<_> = job.result.iter().map(|result| (seq, result)).collect();
    record::insert_blobs(conn, "INSERT INTO leasehold_results VALUES", &results).await
}
