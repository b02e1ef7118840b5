//! Changes jobs and queues on an operator's behalf, and removes what is over: see `Backend::amend`, `set_queue`,
//! `queues` and `prune`.

use std::collections::HashMap;

use leasehold_core::authoring::stored;
use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Cursor, Event, Order, Prune, Pruned, QueueRecord, Select, SetQueue,
};
use leasehold_core::{JobId, QueueName, Reason, State, Timestamp, UniqueKey};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::enqueue::{free_keys, holders};
use crate::error::Done;
use crate::inspect;
use crate::record::{self, Brief};
use crate::writer::Session;

pub(crate) async fn amend(session: &mut Session, request: Amend) -> Done<Amended> {
    let (ids, next) = select(session, request.select).await?;
    let mut jobs = record::load(&mut session.conn, &ids).await?;
    let mut keys = wanted_keys(session, &jobs, &request.action).await?;
    let mut amended = Amended { jobs: Vec::with_capacity(ids.len()), next };
    let mut changed = Vec::new();
    for id in ids {
        let answer = match jobs.get_mut(&id) {
            Some(job) => act(job, &request.action, &mut keys, session.now),
            None => AmendAnswer::NotFound,
        };
        if matches!(answer, AmendAnswer::Applied | AmendAnswer::Requested) {
            changed.push(id);
        }
        amended.jobs.push((id, answer));
    }
    if !request.preview {
        if let Action::Move { .. } | Action::Reprioritise { .. } = request.action {
            record::change_lanes(&mut session.conn, &mut jobs).await?;
        }
        let changed: Vec<_> = changed.iter().map(|id| &jobs[id]).collect();
        write(session, &changed, &request.action).await?;
    }
    Ok(amended)
}

async fn select(session: &mut Session, select: Select) -> Done<(Vec<JobId>, Option<Cursor>)> {
    match select {
        Select::Ids(ids) => Ok((ids, None)),
        Select::Matching { mut filter, as_of, after, limit } => {
            filter.enqueued_until = Some(filter.enqueued_until.unwrap_or(as_of).min(as_of));
            let (order, now) = (Order::OldestFirst, session.now);
            let (places, next) =
                inspect::matching(&mut session.conn, &filter, order, after.as_ref(), limit, now).await?;
            let id = |place: &inspect::Place| Uuid::from_slice(&place.id).map(JobId::from_uuid).ok();
            Ok((places.iter().filter_map(id).collect(), next))
        }
    }
}

/// Which unique keys the jobs would take again if this brought them back, and who holds them now (clause P4).
async fn wanted_keys(
    session: &mut Session,
    jobs: &HashMap<JobId, Brief>,
    action: &Action,
) -> Done<HashMap<UniqueKey, JobId>> {
    if !action.brings_back() {
        return Ok(HashMap::new());
    }
    let keys: Vec<_> = jobs.values().filter_map(|job| key_taken_again(job, action)).collect();
    let keys: Vec<_> = keys.iter().collect();
    free_keys(&mut session.conn, &keys, session.now).await?;
    holders(&mut session.conn, &keys).await
}

fn key_taken_again(job: &Brief, action: &Action) -> Option<UniqueKey> {
    let unique = stored::options(&job.options).ok()?.unique?;
    let was_claimed = job.worker.is_some() || job.generation > 0;
    unique.is_taken_again(action, was_claimed).then_some(unique.key)
}

/// Changes the job if its state allows it.
fn act(
    job: &mut Brief,
    action: &Action,
    keys: &mut HashMap<UniqueKey, JobId>,
    now: Timestamp,
) -> AmendAnswer {
    let state = job.state_at(now);
    let is_withdrawn = state == State::Cancelled && job.reason.as_deref() == Some(Reason::Moved.into());
    match action {
        Action::Withdraw if is_withdrawn => return AmendAnswer::AlreadyApplied,
        Action::Withdraw if state.is_waiting() => job.end(State::Cancelled, Some(Reason::Moved), now),
        Action::Restore if state.is_waiting() => return AmendAnswer::AlreadyApplied,
        Action::Restore if is_withdrawn => {
            let due = Timestamp::from_millis(job.due);
            return bring_back(job, action, due, keys, now);
        }
        Action::DeleteEnded { by } if job.ended_by(*by) => {}
        Action::Delete if is_withdrawn => {}
        _ if is_withdrawn => return AmendAnswer::Refused(state),
        Action::Cancel if state == State::Cancelled => return AmendAnswer::AlreadyApplied,
        Action::Cancel if state == State::Running => {
            job.cancel_requested = true;
            return AmendAnswer::Requested;
        }
        Action::Cancel if state.is_waiting() => job.end(State::Cancelled, Some(Reason::Cancelled), now),
        Action::Requeue { due } if state.is_terminal() => {
            return bring_back(job, action, due.by(now), keys, now);
        }
        Action::Delete if state != State::Running => {}
        Action::Move { queue } if job.queue == queue.as_str() => return AmendAnswer::AlreadyApplied,
        Action::Move { queue } if state != State::Running => queue.as_str().clone_into(&mut job.queue),
        Action::Reprioritise { priority } if job.priority == *priority => {
            return AmendAnswer::AlreadyApplied;
        }
        Action::Reprioritise { priority } => job.priority = *priority,
        Action::Postpone { due } if state.is_waiting() && job.due == due.by(now).as_millis() => {
            return AmendAnswer::AlreadyApplied;
        }
        Action::Postpone { due } if state.is_waiting() => job.wait(due.by(now), Reason::Postponed, now),
        Action::Unpark { .. } if !job.is_parked(now) => return AmendAnswer::AlreadyApplied,
        Action::Unpark { due } => job.wait(due.by(now), None, now),
        Action::CancelParked if state == State::Cancelled => return AmendAnswer::AlreadyApplied,
        Action::CancelParked if job.is_parked(now) => {
            job.end(State::Cancelled, Some(Reason::Dependency), now);
        }
        _ => return AmendAnswer::Refused(state),
    }
    AmendAnswer::Applied
}

/// Sends an ended job round again (clause S1), or lets one that was withdrawn wait as it did (clause P8).
fn bring_back(
    job: &mut Brief,
    action: &Action,
    due: Timestamp,
    keys: &mut HashMap<UniqueKey, JobId>,
    now: Timestamp,
) -> AmendAnswer {
    let id = JobId::from_uuid(job.id);
    if let Some(key) = key_taken_again(job, action) {
        let holder = *keys.entry(key.clone()).or_insert(id);
        if holder != id {
            return AmendAnswer::Held(holder);
        }
        job.unique_key = Some(key.into());
    }
    (job.finished_at, job.expires_at) = (None, None);
    if *action == Action::Restore {
        job.wait(due, None, now);
    } else {
        job.wait(due, Reason::Requeued, now);
        (job.attempt, job.crashes, job.generation, job.progress) = (0, 0, job.generation + 1, None);
    }
    AmendAnswer::Applied
}

async fn write(session: &mut Session, jobs: &[&Brief], action: &Action) -> Done<()> {
    let seqs = record::list(&jobs.iter().map(|job| job.seq).collect::<Vec<_>>())?;
    match action {
        Action::Delete | Action::DeleteEnded { .. } => {
            run(&mut session.conn, "DELETE FROM leasehold_jobs WHERE", seqs).await?;
        }
        Action::Requeue { .. } => {
            record::save(&mut session.conn, jobs).await?;
            run(&mut session.conn, "DELETE FROM leasehold_results WHERE", seqs).await?;
        }
        _ => record::save(&mut session.conn, jobs).await?,
    }
    for job in jobs {
        match QueueName::new(&job.queue) {
            Err(_) => {}
            Ok(_) if action.deletes() => {}
            Ok(queue) if job.cancel_requested => {
                session.tell(|| Event::CancelRequested { job: JobId::from_uuid(job.id), queue });
            }
            _ => job.tell(session),
        }
    }
    Ok(())
}

async fn run(conn: &mut SqliteConnection, sql: &str, seqs: String) -> Done<()> {
    let sql = format!("{sql} seq IN (SELECT value FROM json_each(?))");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(seqs).execute(conn).await?;
    Ok(())
}

pub(crate) async fn set_queue(session: &mut Session, request: SetQueue) -> Done<()> {
    sqlx::query(
        "INSERT INTO leasehold_queues (queue, settings, paused, rated, changed_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET settings = ?2, paused = ?3, rated = ?4, changed_at = ?5",
    )
    .bind(request.queue.as_str())
    .bind(serde_json::to_string(&request.settings)?)
    .bind(request.settings.pause.is_some())
    .bind(request.settings.rate.is_some())
    .bind(session.now.as_millis())
    .execute(&mut session.conn)
    .await?;
    session.tell(|| Event::QueueSet { queue: request.queue.clone() });
    session.tell(|| Event::Waiting { queue: request.queue });
    Ok(())
}

pub(crate) async fn queues(conn: &mut SqliteConnection) -> Done<Vec<QueueRecord>> {
    let rows: Vec<(String, Option<String>, Option<i64>)> = sqlx::query_as(
        "SELECT queue, max(settings), max(changed_at) FROM (
             SELECT queue, settings, changed_at FROM leasehold_queues
             UNION ALL SELECT DISTINCT queue, NULL, NULL FROM leasehold_lanes
         ) GROUP BY queue ORDER BY queue",
    )
    .fetch_all(conn)
    .await?;
    let record = |(queue, settings, changed_at): (String, Option<String>, Option<i64>)| {
        let settings = settings.as_deref().map(serde_json::from_str).and_then(Result::ok).unwrap_or_default();
        Some(QueueRecord::new(QueueName::new(queue).ok()?, settings, changed_at.map(Timestamp::from_millis)))
    };
    Ok(rows.into_iter().filter_map(record).collect())
}

const PRUNE: &str = "DELETE FROM leasehold_jobs WHERE seq IN (
             SELECT seq FROM leasehold_jobs WHERE expires_at < ? AND state > 3 ORDER BY expires_at LIMIT ?)";

const PRUNE_REGISTERS: &str = "DELETE FROM leasehold_registers WHERE rowid IN (
             SELECT rowid FROM leasehold_registers WHERE expires < ? ORDER BY expires LIMIT ?)";

pub(crate) async fn prune(session: &mut Session, request: Prune) -> Done<Pruned> {
    let (conn, now) = (&mut session.conn, session.now);
    let jobs = sqlx::query(PRUNE)
        .bind(now.as_millis())
        .bind(stored::at_most(request.limit))
        .execute(&mut *conn)
        .await?
        .rows_affected();
    let workers = sqlx::query("DELETE FROM leasehold_workers WHERE seen_at < ?")
        .bind(now.minus(request.workers_after).as_millis())
        .execute(&mut *conn)
        .await?
        .rows_affected();
    let registers = sqlx::query(PRUNE_REGISTERS)
        .bind(now.as_millis())
        .bind(stored::at_most(request.limit))
        .execute(&mut *conn)
        .await?
        .rows_affected();
    let empty =
        "DELETE FROM leasehold_lanes WHERE scheduled + queued + running + succeeded + failed + cancelled = 0";
    sqlx::query(empty).execute(&mut *conn).await?;
    let more = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM leasehold_jobs WHERE expires_at < ?1 AND state > 3)
             OR EXISTS (SELECT 1 FROM leasehold_registers WHERE expires < ?1)",
    )
    .bind(now.as_millis())
    .fetch_one(conn)
    .await?;
    Ok(Pruned { jobs, workers, registers, more })
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_pruning_reads_a_range_of_an_index() {
        let plan = crate::schema::assert_indexed(super::PRUNE).await;
        assert!(plan.contains("leasehold_jobs_expiring (expires_at<?)"), "{plan}");
        let plan = crate::schema::assert_indexed(super::PRUNE_REGISTERS).await;
        assert!(plan.contains("leasehold_registers_expires (expires<?)"), "{plan}");
    }
}
