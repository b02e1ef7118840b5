//! Records how attempts ended: see `Backend::settle` and `Backend::recover`.

use std::collections::{HashMap, HashSet};

use leasehold_core::backend::{Answer, NewFailure, Settle, Settlement, Verdict};
use leasehold_core::{Failure, Payload, QueueName, Reason, State, Timestamp, WorkerId};
use uuid::Uuid;

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
    let mut answers = vec![Answer::Lost; settlements.len()];
    let mut applied = Vec::new();
    if by == By::Holder && all_differ(&settlements) {
        succeed(session, &settlements, &mut answers, &mut applied).await?;
    }
    let rest: Vec<_> = (0..answers.len()).filter(|n| answers[*n] != Answer::Applied).collect();
    let mut jobs = record::load(&mut session.conn, rest.iter().map(|n| &settlements[*n].job)).await?;
    let mut changed = Vec::new();
    for n in rest {
        let Some(job) = jobs.get_mut(&settlements[n].job) else { continue };
        answers[n] = apply(job, &settlements[n], by, session.now)?;
        if answers[n] == Answer::Applied {
            applied.push((n, job.seq));
            changed.push(settlements[n].job);
        }
    }
    let changed: Vec<_> = changed.iter().map(|id| &jobs[id]).collect();
    record::save(&mut session.conn, &changed).await?;
    changed.iter().for_each(|job| job.tell(session));
    let results: Vec<_> =
        applied.iter().filter_map(|(n, seq)| Some((*seq, result(&settlements[*n])?))).collect();
    record::insert_blobs(&mut session.conn, "INSERT OR REPLACE INTO leasehold_results VALUES", &results)
        .await?;
    Ok(answers)
}

fn all_differ(settlements: &[Settlement]) -> bool {
    let mut seen = HashSet::with_capacity(settlements.len());
    settlements.iter().all(|settlement| seen.insert(settlement.job))
}

fn result(settlement: &Settlement) -> Option<&Payload> {
    match &settlement.verdict {
        Verdict::Succeed { result } => result.as_ref(),
        _ => None,
    }
}

/// Writes what most settlements are, a plain success of a held job, without reading it first. Those that do not
/// come out as applied are for the longer way to judge.
async fn succeed(
    session: &mut Session,
    settlements: &[Settlement],
    answers: &mut [Answer],
    applied: &mut Vec<(usize, i64)>,
) -> Done<()> {
    let plain = |s: &Settlement| matches!(s.verdict, Verdict::Succeed { .. }) && s.failure.is_none();
    let plain: Vec<_> = (0..settlements.len()).filter(|n| plain(&settlements[*n])).collect();
    if plain.is_empty() {
        return Ok(());
    }
    let (places, leases) = record::leases(plain.iter().map(|n| (settlements[*n].job, settlements[*n].token)));
    let done: Vec<(Uuid, i64, String)> = sqlx::query_as(
        "UPDATE leasehold_jobs SET state = 4, reason = NULL, finished_at = ?1, expires_at = ?1 + keep_succeeded,
             claim = NULL, lease_until = NULL, cancel_requested = 0, settled_claim = claim, settled_as = 'succeed',
             unique_key = CASE unique_scope WHEN ?2 THEN unique_key END
         FROM json_each(?3) AS v
         WHERE leasehold_jobs.id = substr(?4, v.value + 1, 16) AND claim = substr(?4, v.value + 17, 16) AND state = 3
         RETURNING leasehold_jobs.id, seq, queue",
    )
    .bind(session.now.as_millis())
    .bind(UNIQUE_FOR)
    .bind(places)
    .bind(leases)
    .fetch_all(&mut session.conn)
    .await?;
    let done: HashMap<_, _> = done.into_iter().map(|(id, seq, queue)| (id, (seq, queue))).collect();
    for n in plain {
        if let Some((seq, queue)) = done.get(settlements[n].job.as_uuid()) {
            answers[n] = Answer::Applied;
            applied.push((n, *seq));
            if let Ok(queue) = QueueName::new(queue) {
                session.tell_state(settlements[n].job, &queue, State::Succeeded);
            }
        }
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
        Verdict::Retry { reason, delay } => job.wait(now.plus(delay), reason, now),
        Verdict::Release { reason, delay } => {
            job.attempt -= 1;
            let due = if delay.is_zero() { Timestamp::from_millis(job.due) } else { now.plus(delay) };
            job.wait(due, reason, now);
        }
    }
}
