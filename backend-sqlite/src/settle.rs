//! Records how attempts ended: see `Backend::settle` and `Backend::recover`.

use std::collections::HashSet;

use leasehold_core::backend::{Answer, NewFailure, Settle, Settlement, Verdict};
use leasehold_core::{Failure, Reason, State, Timestamp, WorkerId};

use sqlx::AssertSqlSafe;

use crate::error::Done;
use crate::record::{self, Brief, UNIQUE_FOR};
use crate::writer::Session;

/// Who settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The holder of the lease.
    Holder,
    /// Whoever found that the lease had run out.
    Recoverer,
}

pub(crate) async fn settle(session: &mut Session, request: Settle, by: By) -> Done<Vec<Answer>> {
    let settlements = request.settlements;
    let mut answers = vec![None; settlements.len()];
    if by == By::Holder && all_differ(&settlements) {
        let plain = |s: &Settlement| matches!(s.verdict, Verdict::Succeed { .. }) && s.failure.is_none();
        let plain: Vec<_> = (0..settlements.len()).filter(|n| plain(&settlements[*n])).collect();
        if succeed(session, plain.iter().map(|n| &settlements[*n])).await? {
            plain.into_iter().for_each(|n| answers[n] = Some(Answer::Applied));
        }
    }
    let rest: Vec<_> = (0..settlements.len()).filter(|n| answers[*n].is_none()).collect();
    let mut jobs = record::load(&mut session.conn, rest.iter().map(|n| &settlements[*n].job)).await?;
    let mut applied = Vec::new();
    for n in rest {
        let answer = match jobs.get_mut(&settlements[n].job) {
            Some(job) => apply(job, &settlements[n], by, session.now)?,
            None => Answer::Lost,
        };
        if answer == Answer::Applied {
            applied.push(&settlements[n]);
        }
        answers[n] = Some(answer);
    }
    if applied.iter().any(|s| matches!(s.verdict, Verdict::Retry { queue: Some(_), .. })) {
        record::change_lanes(&mut session.conn, &mut jobs).await?;
    }
    let changed: Vec<_> = applied.iter().map(|settlement| &jobs[&settlement.job]).collect();
    record::save(&mut session.conn, &changed).await?;
    changed.iter().for_each(|job| job.tell(session));
    insert_results(session, applied).await?;
    Ok(answers.into_iter().map(|answer| answer.unwrap_or(Answer::Lost)).collect())
}

fn all_differ(settlements: &[Settlement]) -> bool {
    let mut seen = HashSet::with_capacity(settlements.len());
    settlements.iter().all(|settlement| seen.insert(settlement.job))
}

/// Writes what most settlements are, plain successes of held jobs, without reading them first. Answers false, and
/// leaves nothing behind, if one of them does not come out as applied: the longer way tells why.
async fn succeed<'s>(
    session: &mut Session,
    settlements: impl ExactSizeIterator<Item = &'s Settlement> + Clone,
) -> Done<bool> {
    let wanted = settlements.len() as u64;
    if wanted == 0 {
        return Ok(true);
    }
    let (starts, leases) = record::leases(settlements.clone().map(|s| (s.job, s.token)));
    let done = sqlx::query(
        "UPDATE leasehold_jobs SET state = 4, reason = NULL, finished_at = ?1, expires_at = ?1 + keep_succeeded,
             claim = NULL, lease_until = NULL, cancel_requested = 0, settled_claim = claim, settled_as = 'succeed',
             unique_key = CASE unique_scope WHEN ?2 THEN unique_key END
         FROM json_each(?3) AS start
         WHERE leasehold_jobs.id = substr(?4, start.value, 16) AND claim = substr(?4, start.value + 16, 16)
             AND state = 3",
    )
    .bind(session.now.as_millis())
    .bind(UNIQUE_FOR)
    .bind(starts)
    .bind(leases)
    .execute(&mut session.conn)
    .await?;
    if done.rows_affected() < wanted {
        session.undo().await?;
        return Ok(false);
    }
    if session.is_watched() {
        let jobs = record::load(&mut session.conn, settlements.clone().map(|s| &s.job)).await?;
        jobs.values().for_each(|job| job.tell(session));
    }
    insert_results(session, settlements).await?;
    Ok(true)
}

async fn insert_results(
    session: &mut Session,
    settlements: impl IntoIterator<Item = &Settlement>,
) -> Done<()> {
    let result = |s: &Settlement| match &s.verdict {
        Verdict::Succeed { result: Some(result) } => Some((s.job, result.clone())),
        _ => None,
    };
    let results: Vec<_> = settlements.into_iter().filter_map(result).collect();
    for chunk in record::chunks(results.len()) {
        let sql = format!(
            "INSERT OR REPLACE INTO leasehold_results
             SELECT seq, v.column2 FROM (VALUES {}) AS v JOIN leasehold_jobs ON id = v.column1",
            record::places(chunk.len(), 2)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (job, result) in &results[chunk] {
            query = query.bind(*job.as_uuid()).bind(result.as_bytes().to_vec());
        }
        query.execute(&mut session.conn).await?;
    }
    Ok(())
}

/// Changes the job if the settlement has the right to (clause C2).
fn apply(job: &mut Brief, settlement: &Settlement, by: By, now: Timestamp) -> Done<Answer> {
    let name = name(&settlement.verdict, by);
    let claim = settlement.token.claim(settlement.job);
    let held = job.state == record::code(State::Running) && job.claim == Some(*claim.as_uuid());
    let valid = job.lease_until.is_some_and(|until| until >= now.as_millis());
    if !held {
        let again =
            job.settled_claim == Some(*claim.as_uuid()) && job.settled_as.as_deref() == Some(name.as_str());
        return Ok(if again { Answer::AlreadyApplied } else { Answer::Lost });
    }
    if by == By::Recoverer {
        if valid {
            return Ok(Answer::Lost);
        }
        job.crashes += 1;
    }
    if let Some(failure) = &settlement.failure {
        job.remember(failed(job, failure, now))?;
    }
    become_what_it_says(job, &settlement.verdict, now);
    // One that ends stays where it is.
    if let Verdict::Retry { queue: Some(queue), .. } = &settlement.verdict
        && job.state_at(now).is_waiting()
    {
        queue.as_str().clone_into(&mut job.queue);
    }
    (job.settled_claim, job.settled_as) = (Some(*claim.as_uuid()), Some(name));
    Ok(Answer::Applied)
}

/// The name by which a repeated settlement is recognised. A holder that wants a retry does not mean the recovery
/// that came before it.
fn name(verdict: &Verdict, by: By) -> String {
    match by {
        By::Holder => verdict.name().to_owned(),
        By::Recoverer => format!("recover_{}", verdict.name()),
    }
}

fn failed(job: &Brief, failure: &NewFailure, now: Timestamp) -> Failure {
    Failure {
        attempt: u32::try_from(job.attempt).unwrap_or(u32::MAX),
        worker: job.worker.map(WorkerId::from_uuid),
        at: now,
        reason: failure.reason,
        class: failure.class.clone(),
        message: failure.message.clone(),
    }
}

fn become_what_it_says(job: &mut Brief, verdict: &Verdict, now: Timestamp) {
    match *verdict {
        Verdict::Succeed { .. } => job.end(State::Succeeded, None, now),
        Verdict::Fail { reason } => job.end(State::Failed, Some(reason), now),
        Verdict::Cancel { reason } => job.end(State::Cancelled, Some(reason), now),
        // Somebody asked for its end while it ran (S5).
        Verdict::Retry { .. } | Verdict::Release { .. } if job.cancel_requested => {
            job.end(State::Cancelled, Some(Reason::Cancelled), now);
        }
        // A policy does not ask for this; if one does, the job must not wait for a claim that never comes (C4).
        Verdict::Retry { .. } if job.attempt >= job.max_attempts => {
            job.end(State::Failed, Some(Reason::MaxAttempts), now);
        }
        Verdict::Retry { reason, delay, .. } => job.wait(now.plus(delay), reason, now),
        Verdict::Release { reason, delay } => {
            job.attempt -= 1;
            let due = if delay.is_zero() { Timestamp::from_millis(job.due) } else { now.plus(delay) };
            job.wait(due, reason, now);
        }
    }
}
