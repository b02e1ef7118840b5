//! Records how attempts ended: see `Backend::settle` and `Backend::recover`.

use leasehold_core::backend::{Answer, NewFailure, Settle, Settlement, Verdict};
use leasehold_core::{Failure, Payload, Reason, State, Timestamp, WorkerId};

use crate::error::Done;
use crate::record::{self, Brief};
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
    let mut jobs = record::load(&mut session.conn, settlements.iter().map(|s| &s.job)).await?;
    let mut answers = Vec::with_capacity(settlements.len());
    let mut applied = Vec::new();
    for settlement in &settlements {
        let answer = match jobs.get_mut(&settlement.job) {
            Some(job) => apply(job, settlement, by, session.now)?,
            None => Answer::Lost,
        };
        if answer == Answer::Applied {
            applied.push(settlement);
        }
        answers.push(answer);
    }
    let changed: Vec<_> = applied.iter().map(|settlement| &jobs[&settlement.job]).collect();
    record::save(&mut session.conn, &changed).await?;
    let results: Vec<_> = applied.iter().filter_map(|s| Some((jobs[&s.job].seq, result(s)?))).collect();
    record::insert_blobs(&mut session.conn, "INSERT OR REPLACE INTO leasehold_results VALUES", &results)
        .await?;
    changed.iter().for_each(|job| job.tell(session));
    Ok(answers)
}

fn result(settlement: &Settlement) -> Option<&Payload> {
    match &settlement.verdict {
        Verdict::Succeed { result } => result.as_ref(),
        _ => None,
    }
}

/// Changes the job if the settlement has the right to (clause C2).
fn apply(job: &mut Brief, settlement: &Settlement, by: By, now: Timestamp) -> Done<Answer> {
    let name = name(&settlement.verdict, by);
    let claim = settlement.token.claim(settlement.job);
    let held = job.state == record::code(State::Running) && job.claim == Some(*claim.as_uuid());
    let valid = job.lease_until.is_some_and(|until| until >= now.as_millis());
    if !held {
        let again = job.settled_token == Some(*settlement.token.as_uuid())
            && job.settled_as.as_deref() == Some(name.as_str());
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
    job.settled_token = Some(*settlement.token.as_uuid());
    job.settled_as = Some(name);
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
