//! Gives jobs out under leases: see `Backend::claim`.
//!
//! A claim visits *lanes*: the jobs of one queue, kind and priority, which stand in one range of an index in the
//! order they are due. Which lanes have jobs is known from the kept counts. So whatever does not match the claim
//! is never looked at, however much of it there is.

use std::collections::HashMap;

use leasehold_core::authoring::stored::millis;
use leasehold_core::backend::{Claim, Claimed, SetAside, TagRule};
use leasehold_core::{JobId, JobRecord, LeasedJob, QueueName, Reason, Retention, State, Timestamp, limits};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use crate::error::Done;
use crate::record::{self, Lane, NEW_COLUMNS, SELECT, UNIQUE_UNTIL_CLAIMED};
use crate::writer::Session;

pub(crate) async fn claim(session: &mut Session, request: Claim) -> Done<Claimed> {
    let mut claimed = Claimed::default();
    if let Some(jobs) = repeated(session, &request).await? {
        claimed.jobs = jobs;
        return Ok(claimed);
    }
    if request.limit == 0 {
        return Ok(claimed);
    }
    let mut seqs = Vec::new();
    let lanes = lanes(&mut session.conn, &request).await?;
    for level in lanes.chunk_by(|(_, a), (_, b)| a.priority == b.priority) {
        take(session, &request, level, &mut seqs, &mut claimed).await?;
        end_without_room(session, &request, level, &claimed).await?;
        if claimed.jobs.len() >= request.limit {
            break;
        }
    }
    if !seqs.is_empty() {
        remember(session, &request, &seqs).await?;
    }
    if claimed.jobs.len() < request.limit {
        let next = next_due(&mut session.conn, &lanes, session.now).await?;
        claimed.next_due = next.and_then(|due| Claimed::until(due, session.now));
    }
    Ok(claimed)
}

/// What this very claim got before its answer was lost and still holds; none if it is the first of its id
/// (clause E2).
async fn repeated(session: &mut Session, request: &Claim) -> Done<Option<Vec<LeasedJob>>> {
    let id = *request.id.as_uuid();
    let jobs: Option<String> = sqlx::query_scalar("SELECT jobs FROM leasehold_claims WHERE claim = ?")
        .bind(id)
        .fetch_optional(&mut session.conn)
        .await?;
    let Some(jobs) = jobs else { return Ok(None) };
    let sql = format!("{SELECT} WHERE seq IN (SELECT value FROM json_each(?)) AND state = 3 AND claim = ?");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(jobs).bind(id).fetch_all(&mut session.conn).await?;
    let mut jobs: Vec<_> = rows.iter().filter_map(|row| record::read(row, session.now).ok()).collect();
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.options.priority), job.due, job.id));
    Ok(Some(jobs.into_iter().map(|job| leased(request, job)).collect()))
}

/// Remembers what this claim got, and forgets claims that are too old to be repeated.
async fn remember(session: &mut Session, request: &Claim, seqs: &[i64]) -> Done<()> {
    // Two are forgotten for each that comes, so that they do not pile up.
    sqlx::query(
        "INSERT INTO leasehold_claims (claim, at, jobs) VALUES (?, ?, ?);
         DELETE FROM leasehold_claims
         WHERE seq IN (SELECT seq FROM leasehold_claims ORDER BY seq LIMIT 2) AND at < ?",
    )
    .bind(*request.id.as_uuid())
    .bind(session.now.as_millis())
    .bind(record::list(seqs)?)
    .bind(session.now.minus(limits::CLAIM_MEMORY).as_millis())
    .execute(&mut session.conn)
    .await?;
    Ok(())
}

fn leased(request: &Claim, job: JobRecord) -> LeasedJob {
    let (token, lease) = (request.id.token(job.id), job.options.lease.unwrap_or(request.lease));
    LeasedJob::new(job, token, lease)
}

/// Adds what the claim itself wrote.
fn just_leased(request: &Claim, job: JobRecord, now: Timestamp) -> LeasedJob {
    let mut leased = leased(request, job);
    leased.job.state = State::Running;
    leased.job.started_at = Some(now);
    leased.job.worker = Some(request.worker);
    leased.job.lease_until = Some(now.plus(leased.lease));
    leased
}

/// The lanes that have waiting jobs for this claim, highest priority first, with their numbers.
async fn lanes(conn: &mut SqliteConnection, request: &Claim) -> Done<Vec<(i64, Lane)>> {
    let rows: Vec<(i64, String, i16, String)> = sqlx::query_as(
        "SELECT lane, queue, priority, kind FROM leasehold_lanes
         WHERE queue IN (SELECT value FROM json_each(?1)) AND scheduled + queued > 0 AND priority >= ?2
             AND queue NOT IN (SELECT o.value ->> 0 FROM json_each(?3) AS o
                 JOIN leasehold_queues AS q ON q.queue = o.value ->> 1 WHERE q.paused)
             AND queue NOT IN (SELECT queue FROM leasehold_queues WHERE rated > ?4)
         ORDER BY priority DESC",
    )
    .bind(record::list(&request.queues)?)
    .bind(request.min_priority.unwrap_or(i16::MIN))
    .bind(record::list(&openers(request))?)
    .bind(request.rated)
    .fetch_all(conn)
    .await?;
    let lane = |(number, queue, priority, kind): (_, String, _, String)| {
        let lane = Lane::new(&queue, priority, &kind);
        lane.inspect_err(|error| tracing::warn!(number, %error, "a lane cannot be read; its jobs wait"))
            .ok()
            .map(|lane| (number, lane))
    };
    // One that cannot be read stops no other (clause B3).
    let mut lanes: Vec<_> = rows.into_iter().filter_map(lane).collect();
    lanes.retain(|(_, lane)| request.kinds.takes(&lane.kind));
    Ok(lanes)
}

/// The asked queues, each with itself and with each root that it lies under: a pause of either keeps it shut (clause C10).
fn openers(request: &Claim) -> Vec<(&QueueName, QueueName)> {
    let with = |queue: &QueueName| queue.roots().chain([queue.clone()]).collect::<Vec<_>>();
    request
        .queues
        .iter()
        .flat_map(|queue| with(queue).into_iter().map(move |opener| (queue, opener)))
        .collect()
}

/// The numbers of lanes as a list for SQL.
fn numbers(lanes: &[(i64, Lane)]) -> Done<String> {
    record::list(&lanes.iter().map(|(number, _)| *number).collect::<Vec<_>>())
}

/// Takes from the lanes of one priority until the claim is full or they have no more.
async fn take(
    session: &mut Session,
    request: &Claim,
    lanes: &[(i64, Lane)],
    seqs: &mut Vec<i64>,
    claimed: &mut Claimed,
) -> Done<()> {
    loop {
        let wanted = request.limit - claimed.jobs.len();
        let candidates = candidates(session, request, lanes, wanted).await?;
        let chosen = within_limits(&candidates);
        let complete = candidates.len() < wanted || chosen.is_empty();
        lease(session, request, lanes, &chosen, claimed).await?;
        seqs.extend(&chosen);
        if complete || claimed.jobs.len() >= request.limit {
            return Ok(());
        }
    }
}

/// A due job that may be taken, as far as the store knows before the claim takes others: its `seq`, its limit key,
/// how many jobs of that may run, and how many do.
type Candidate = (i64, Option<String>, Option<i64>, Option<i64>);

/// The first due jobs of these lanes, in order.
async fn candidates(
    session: &mut Session,
    request: &Claim,
    lanes: &[(i64, Lane)],
    wanted: usize,
) -> Done<Vec<Candidate>> {
    // As one value, since each row costs a passage between threads.
    let candidates: String = sqlx::query_scalar(AssertSqlSafe(candidates_sql(&request.tags)))
        .bind(numbers(lanes)?)
        .bind(session.now.as_millis())
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .bind(tags_of(request)?)
        .fetch_one(&mut session.conn)
        .await?;
    Ok(serde_json::from_str(&candidates)?)
}

/// The condition for tags, the list of which is the fourth value.
fn tag_rule(tags: &TagRule) -> &'static str {
    // Tags that cannot be read pass, so that the job is taken and set aside.
    match tags {
        TagRule::Any => "",
        TagRule::JobHasAll(_) => {
            "AND (tags IS NOT NULL OR ?4 = '[]') AND (NOT json_valid(tags) OR NOT EXISTS
                (SELECT value FROM json_each(?4) EXCEPT SELECT value FROM json_each(tags)))"
        }
        TagRule::WorkerHasAll(_) => {
            "AND (tags IS NULL OR NOT json_valid(tags) OR NOT EXISTS
                (SELECT value FROM json_each(tags) EXCEPT SELECT value FROM json_each(?4)))"
        }
    }
}

fn candidates_sql(tags: &TagRule) -> String {
    let rule = tag_rule(tags);
    // Keys are told as hexadecimal digits, which can be read whatever the keys have become.
    format!(
        "SELECT json_group_array(json_array(seq, limit_key, limit_max, running)) FROM (
         SELECT j.seq, CASE WHEN j.limit_key IS NOT NULL THEN hex(j.limit_key) END AS limit_key, j.limit_max, l.running
         FROM json_each(?1) AS start CROSS JOIN leasehold_jobs AS j
             LEFT JOIN leasehold_limits AS l ON l.key = j.limit_key
         WHERE j.seq IN (
             SELECT seq FROM leasehold_jobs INDEXED BY leasehold_jobs_waiting
             WHERE lane = start.value AND state <= 2 AND due <= ?2 AND attempt < max_attempts
                 AND (limit_key IS NULL OR NOT EXISTS
                     (SELECT 1 FROM leasehold_limits WHERE key = limit_key AND running >= limit_max))
                 {rule}
             ORDER BY due, id LIMIT ?3)
         ORDER BY j.due, j.id LIMIT ?3)"
    )
}

/// Ends jobs of these lanes that the claim came by, for which there is no room, and which would rather end than wait
/// (clause C9): all that stand before the last one that was given out, or simply all if the claim is not full.
async fn end_without_room(
    session: &mut Session,
    request: &Claim,
    lanes: &[(i64, Lane)],
    claimed: &Claimed,
) -> Done<()> {
    let last = claimed.jobs.last().filter(|_| claimed.jobs.len() >= request.limit).map(|leased| &leased.job);
    let found: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(ending_sql(&request.tags)))
        .bind(numbers(lanes)?)
        // The nearer one bounds the search.
        .bind(last.map_or(session.now, |job| job.due.min(session.now)).as_millis())
        .bind(i64::try_from(limits::ENDED_BY_A_CLAIM).unwrap_or(i64::MAX))
        .bind(tags_of(request)?)
        .bind(last.map_or(i64::MAX, |job| job.due.as_millis()))
        .bind(last.map_or(Uuid::max(), |job| *job.id.as_uuid()))
        .fetch_all(&mut session.conn)
        .await?;
    let found: Vec<JobId> = found.into_iter().map(JobId::from_uuid).collect();
    let mut jobs = record::load(&mut session.conn, &found).await?;
    jobs.values_mut().for_each(|job| job.end(State::Cancelled, Some(Reason::LimitReached), session.now));
    record::save(&mut session.conn, &jobs.values().collect::<Vec<_>>()).await?;
    jobs.values().for_each(|job| job.tell(session));
    Ok(())
}

fn tags_of(request: &Claim) -> Done<Option<String>> {
    Ok(match &request.tags {
        TagRule::Any => None,
        TagRule::JobHasAll(tags) | TagRule::WorkerHasAll(tags) => Some(serde_json::to_string(tags)?),
    })
}

fn ending_sql(tags: &TagRule) -> String {
    let rule = tag_rule(tags);
    format!(
        "SELECT j.id FROM json_each(?1) AS start CROSS JOIN leasehold_jobs AS j INDEXED BY leasehold_jobs_ending
         WHERE j.lane = start.value AND j.state <= 2 AND j.limit_ends IS NOT NULL AND j.due <= ?2
             AND j.attempt < j.max_attempts AND (j.due, j.id) < (?5, ?6)
             AND EXISTS (SELECT 1 FROM leasehold_limits WHERE key = j.limit_key AND running >= j.limit_max)
             {rule}
         LIMIT ?3"
    )
}

/// Leaves out candidates that would break a limit together with those before them (clause C9).
fn within_limits(candidates: &[Candidate]) -> Vec<i64> {
    let mut taken: HashMap<&str, i64> = HashMap::new();
    let mut chosen = Vec::with_capacity(candidates.len());
    for (seq, key, max, running) in candidates {
        if let (Some(key), Some(max)) = (key, max) {
            let taken = taken.entry(key).or_default();
            if running.unwrap_or(0) + *taken >= *max {
                continue;
            }
            *taken += 1;
        }
        chosen.push(*seq);
    }
    chosen
}

/// Leases jobs to the claim; those that cannot be read are set aside (clause B3).
async fn lease(
    session: &mut Session,
    request: &Claim,
    lanes: &[(i64, Lane)],
    seqs: &[i64],
    claimed: &mut Claimed,
) -> Done<()> {
    if seqs.is_empty() {
        return Ok(());
    }
    // A damaged span may lead beyond all integers.
    let sql = format!(
        "UPDATE leasehold_jobs SET state = 3, reason = NULL, attempt = attempt + 1, started_at = ?1, claim = ?2,
             worker = ?3, lease_until = min(?1 + coalesce(lease, ?5), {}),
             unique_key = CASE unique_scope WHEN {UNIQUE_UNTIL_CLAIMED} THEN NULL ELSE unique_key END
         WHERE seq IN (SELECT value FROM json_each(?4)) RETURNING {NEW_COLUMNS}",
        Timestamp::MAX.as_millis()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(session.now.as_millis())
        .bind(*request.id.as_uuid())
        .bind(*request.worker.as_uuid())
        .bind(record::list(seqs)?)
        .bind(millis(request.lease))
        .fetch_all(&mut session.conn)
        .await?;
    let first = claimed.jobs.len();
    for row in &rows {
        let number: i64 = row.try_get(2)?;
        let Some((_, lane)) = lanes.iter().find(|(lane, _)| *lane == number) else { continue };
        match record::read_new(row, lane) {
            Ok(job) => claimed.jobs.push(just_leased(request, job, session.now)),
            Err(bad) => {
                set_aside(session, row.try_get(0)?, &bad).await?;
                claimed.set_aside.push(bad);
            }
        }
    }
    claimed.jobs[first..].sort_by_key(|leased| (leased.job.due, leased.job.id));
    for leased in &claimed.jobs[first..] {
        session.tell_state(leased.job.id, leased.job.queue.as_str(), State::Running);
    }
    Ok(())
}

/// Takes a record that cannot be read out of the way, as failed (clause B3).
pub(crate) async fn set_aside(session: &mut Session, seq: i64, bad: &SetAside) -> Done<()> {
    tracing::warn!(job = ?bad.job, why = bad.why, "a record was set aside");
    sqlx::query(
        "UPDATE leasehold_jobs SET state = 5, reason = 'unreadable', finished_at = ?2, expires_at = ?3,
             claim = NULL, lease_until = NULL, unique_key = NULL WHERE seq = ?1",
    )
    .bind(seq)
    .bind(session.now.as_millis())
    .bind(Retention::default().failed.until(session.now).map(Timestamp::as_millis))
    .execute(&mut session.conn)
    .await?;
    Ok(())
}

const NEXT_DUE: &str = "SELECT min((
             SELECT due FROM leasehold_jobs INDEXED BY leasehold_jobs_waiting
             WHERE lane = start.value AND state <= 2 AND due > ?2 ORDER BY due LIMIT 1))
         FROM json_each(?1) AS start";

/// When the next job of these lanes becomes due.
async fn next_due(
    conn: &mut SqliteConnection,
    lanes: &[(i64, Lane)],
    now: Timestamp,
) -> Done<Option<Timestamp>> {
    let due: Option<i64> =
        sqlx::query_scalar(NEXT_DUE).bind(numbers(lanes)?).bind(now.as_millis()).fetch_one(conn).await?;
    Ok(due.map(Timestamp::from_millis))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schema::assert_indexed;

    #[tokio::test]
    async fn a_claim_reads_ranges_of_indexes() {
        let none = BTreeSet::new;
        for rule in [TagRule::Any, TagRule::JobHasAll(none()), TagRule::WorkerHasAll(none())] {
            let plan = assert_indexed(&candidates_sql(&rule)).await;
            assert!(plan.contains("leasehold_jobs_waiting (lane=? AND due<?)"), "{plan}");
            let plan = assert_indexed(&ending_sql(&rule)).await;
            assert!(plan.contains("leasehold_jobs_ending (lane=? AND due<?)"), "{plan}");
        }
        assert_indexed(NEXT_DUE).await;
    }
}
