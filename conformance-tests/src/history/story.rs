//! Tells how an invariant came to be broken: the offending calls among all that concern the same thing, in order,
//! with times and tokens.

use leasehold_core::backend::QueueCounts;
use leasehold_core::{JobId, LeaseToken};

use super::checker::{Model, Op, Outcome};
use super::event::{Call, Reply};
use super::verdict::{About, Finding};

/// A story has no more lines than this, or else only those of the offending calls.
const LINES: usize = 60;

/// Tells the story of one finding.
pub(crate) fn tell(finding: &Finding, model: &Model<'_>) -> String {
    let first = model.ops.first().map_or(0, |op| op.i);
    let mut lines = Vec::new();
    for (index, op) in model.ops.iter().enumerate() {
        let offends = finding.ops.contains(&index);
        let Some(part) = concern(op, finding, offends) else { continue };
        let mark = if offends { '>' } else { ' ' };
        let (from, to) = (at(op.i, first), at(op.c, first));
        lines.push((offends, format!("{mark} {from:>10} .. {to:<10} {:8} {part}\n", op.p)));
    }
    let mut rest = "";
    if lines.len() > LINES {
        lines.retain(|(offends, _)| *offends);
        lines.truncate(LINES);
        rest = "  (only offending calls are shown)\n";
    }
    let calls: String = lines.into_iter().map(|(_, line)| line).collect();
    let facts: String = finding.facts.iter().map(|fact| format!("  {fact}\n")).collect();
    let Finding { invariant, about, why, .. } = finding;
    format!("{invariant} of {about}: {why}\n  times in ms: begun .. answered\n{calls}{rest}{facts}")
}

/// A moment of the history in milliseconds from its first call.
fn at(t: u64, first: u64) -> String {
    match t {
        u64::MAX => "?".to_owned(),
        t => format!("{:.3}", t.saturating_sub(first) as f64 / 1e6),
    }
}

/// What a call has to do with a finding; none if nothing.
fn concern(op: &Op<'_>, finding: &Finding, offends: bool) -> Option<String> {
    let job = match &finding.about {
        About::Job(job) => part(op, *job),
        _ => None,
    };
    job.or_else(|| offends.then(|| whole(op)))
}

/// A call as a whole, for what is about no one job.
fn whole(op: &Op<'_>) -> String {
    let name = op.call.name();
    let answer = match op.outcome {
        Outcome::Ok(Reply::Claim(jobs)) => {
            let given = jobs.iter().map(|given| format!("{} ({})", given.job.job, short(given.token)));
            format!("gave {}", given.collect::<Vec<_>>().join(", "))
        }
        Outcome::Ok(Reply::Count(counts)) => counts.iter().map(in_words).collect::<Vec<_>>().join("; "),
        Outcome::Ok(_) => "ok".into(),
        Outcome::Failed => "failed".into(),
        Outcome::Unknown => "unknown".into(),
    };
    match op.call {
        Call::Enqueue(puts) => {
            let jobs = puts.iter().map(|put| put.job.to_string()).collect::<Vec<_>>().join(", ");
            format!("{name} {jobs} = {answer}")
        }
        Call::SetQueue(set) => {
            format!("{name} {} {} = {answer}", set.queue, if set.paused { "paused" } else { "open" })
        }
        Call::PutRegister(plan) => format!(
            "{name} {} next {:?}, version {:?} over {:?} = {answer}",
            plan.name, plan.next, plan.version, plan.expected
        ),
        Call::Watch(watching) => format!("{name} {watching:?} = {answer}"),
        _ => format!("{name} = {answer}"),
    }
}

fn in_words(counts: &QueueCounts) -> String {
    let states: String = counts.states.iter().map(|(state, jobs)| format!("{jobs} {state}, ")).collect();
    format!("{}: {states}{} enqueued, {} deleted", counts.queue, counts.enqueued, counts.deleted)
}

/// What a call has to do with a job; none if nothing.
fn part(op: &Op<'_>, job: JobId) -> Option<String> {
    let reply = match op.outcome {
        Outcome::Ok(reply) => Some(reply),
        Outcome::Failed | Outcome::Unknown => None,
    };
    let otherwise = match op.outcome {
        Outcome::Failed => "failed",
        Outcome::Ok(_) | Outcome::Unknown => "unknown",
    };
    let name = op.call.name();
    match (op.call, reply) {
        (Call::Enqueue(puts), reply) => {
            let at = puts.iter().position(|put| put.job == job)?;
            let entry = match reply {
                Some(Reply::Enqueue(answers)) => answers.get(at).map(|(_, entry)| format!("{entry:?}")),
                _ => None,
            };
            Some(format!("{name} = {}", entry.unwrap_or_else(|| otherwise.into())))
        }
        (Call::Claim(_), Some(Reply::Claim(jobs))) => {
            let given = jobs.iter().find(|given| given.job.job == job)?;
            let (attempt, lease) = (given.job.attempt, given.lease);
            let hour = given.started.map(|at| format!(", at {} by the store", at.as_millis()));
            let token = short(given.token);
            let hour = hour.unwrap_or_default();
            Some(format!("{name} = attempt {attempt}, token {token}, lease {lease} ms{hour}"))
        }
        (Call::Renew(writes) | Call::Settle(writes) | Call::Recover(writes) | Call::Log(writes), reply) => {
            let at = writes.iter().position(|write| write.job == job)?;
            let write = &writes[at];
            let answer = reply.and_then(|reply| reply.answer(at));
            let answer = answer.map_or_else(|| otherwise.to_owned(), |answer| answer.to_string());
            let (token, span) = (short(write.token), write.span);
            Some(format!("{name} {} {span} ms, token {token} = {answer}", write.verdict))
        }
        (Call::Amend(change), reply) => {
            let changed = match reply {
                Some(Reply::Amend(jobs)) => jobs.iter().find(|(one, _)| *one == job)?.1.to_string(),
                _ if change.jobs.as_ref().is_none_or(|jobs| jobs.contains(&job)) => otherwise.into(),
                _ => return None,
            };
            Some(format!("{name} {:?} = {changed}", change.action))
        }
        (Call::Look, Some(Reply::Look(jobs))) => {
            let seen = jobs.iter().find(|seen| seen.job == job)?;
            Some(format!("look = {}, attempt {}", seen.state, seen.attempt))
        }
        (Call::ReadLog(reading), Some(Reply::ReadLog { lines, gap })) if reading.job == job => {
            let sequences: Vec<u64> = lines.iter().map(|line| line.sequence).collect();
            let gap = if *gap { ", after a gap" } else { "" };
            Some(format!("{name} after {} = lines {sequences:?}{gap}", reading.after))
        }
        _ => None,
    }
}

/// Enough of a token to tell it from others.
pub(crate) fn short(token: LeaseToken) -> String {
    token.to_string().chars().take(8).collect()
}
