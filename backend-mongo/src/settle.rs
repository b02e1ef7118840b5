//! Records how attempts ended: see `Backend::settle` and `Backend::recover`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use leasehold_core::backend::{Answer, NewFailure, Settlement, Verdict};
use leasehold_core::limits::HISTORY;
use leasehold_core::{JobId, QueueName, Reason};
use mongodb::bson::{Bson, Document, doc};
use uuid::Uuid;

use crate::control::{count_out, register};
use crate::error::Done;
use crate::record::{self, WAITING};
use crate::session::{Change, Db, Kept, Session};
use crate::transition::{Next, count, stages};

/// Who settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The holder of the lease.
    Holder,
    /// Whoever found that the lease had run out.
    Recoverer,
}

/// How many settlements a job remembers: the latest, and some more by which a call finds its own again when the
/// job went on before the call could look.
const REMEMBERED: i32 = 4;

pub(crate) async fn settle(db: &Db, settlements: &[Settlement], by: By) -> Done<Vec<Answer>> {
    let mut answers = vec![Answer::Lost; settlements.len()];
    for round in rounds(settlements) {
        let (elsewhere, here): (Vec<_>, Vec<_>) =
            round.into_iter().partition(|&i| elsewhere(&settlements[i]).is_some());
        let of = |places: &[usize]| places.iter().map(|&i| &settlements[i]).collect::<Vec<_>>();
        if !here.is_empty() {
            let answered = settle_distinct(db, &of(&here), by).await?;
            here.into_iter().zip(answered).for_each(|(i, answer)| answers[i] = answer);
        }
        if !elsewhere.is_empty() {
            let answered = settle_elsewhere(db, &of(&elsewhere), by).await?;
            elsewhere.into_iter().zip(answered).for_each(|(i, answer)| answers[i] = answer);
        }
    }
    let applied = settlements.iter().zip(&answers).filter(|(_, answer)| **answer == Answer::Applied);
    let (ended, back): (Vec<_>, Vec<_>) = applied.map(|(it, _)| it).partition(|it| it.verdict.is_terminal());
    let jobs = |of: Vec<&Settlement>| of.iter().map(|it| it.job).collect();
    db.signals.look_at(jobs(ended), jobs(back));
    Ok(answers)
}

/// Parts in each of which no job stands twice, so that one command can carry a part.
fn rounds(settlements: &[Settlement]) -> Vec<Vec<usize>> {
    let mut seen: HashMap<JobId, usize> = HashMap::with_capacity(settlements.len());
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (i, settlement) in settlements.iter().enumerate() {
        let round = seen.entry(settlement.job).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(i);
        *round += 1;
    }
    rounds
}

async fn settle_distinct(db: &Db, settlements: &[&Settlement], by: By) -> Done<Vec<Answer>> {
    let call = Uuid::new_v4();
    let changes = changes(db, settlements, by, &call);
    let matched = db.plain().update(Kept::Jobs, changes).await?.whole()?;
    if matched == settlements.len() as u64 {
        return Ok(vec![Answer::Applied; settlements.len()]);
    }
    let jobs = record::ids(settlements.iter().map(|settlement| &settlement.job));
    let found = record::load(db, jobs, &["settlements"]).await?;
    Ok(settlements
        .iter()
        .map(|settlement| answer(found.get(&settlement.job), settlement, by, &call))
        .collect())
}

/// The queue that a job is sent to.
fn elsewhere(settlement: &Settlement) -> Option<&QueueName> {
    match &settlement.verdict {
        Verdict::Retry { queue, .. } => queue.as_ref(),
        _ => None,
    }
}

/// Settles those that are sent to another queue: what leaves a queue is counted in the same transaction.
async fn settle_elsewhere(db: &Db, settlements: &[&Settlement], by: By) -> Done<Vec<Answer>> {
    register(db, settlements.iter().filter_map(|settlement| elsewhere(settlement))).await?;
    let mut session = db.atomic().await?;
    loop {
        let outcome = try_elsewhere(&mut session, settlements, by).await;
        if let Some(answers) = session.end(outcome).await? {
            return Ok(answers);
        }
    }
}

async fn try_elsewhere(session: &mut Session<'_>, settlements: &[&Settlement], by: By) -> Done<Vec<Answer>> {
    let (db, call) = (session.db, Uuid::new_v4());
    let jobs = || doc! {"$match": {"_id": {"$in": record::ids(settlements.iter().map(|it| &it.job))}}};
    let before = session.read_now(Kept::Jobs, vec![jobs(), doc! {"$project": {"queue": 1}}]).await?;
    session.update(Kept::Jobs, changes(db, settlements, by, &call)).await?.whole()?;
    let fields = doc! {"$project": {"queue": 1, "settlements": 1}};
    let after = session.read_now(Kept::Jobs, vec![jobs(), fields]).await?;
    let after: HashMap<JobId, Document> =
        after.into_iter().filter_map(|job| Some((record::id(&job)?, job))).collect();
    let answers: Vec<Answer> = settlements
        .iter()
        .map(|settlement| answer(after.get(&settlement.job), settlement, by, &call))
        .collect();
    let applied = settlements.iter().zip(&answers).filter(|(_, answer)| **answer == Answer::Applied);
    let applied: HashSet<JobId> = applied.map(|(settlement, _)| settlement.job).collect();
    let left = before.iter().filter(|job| {
        let id = record::id(job).filter(|id| applied.contains(id));
        id.is_some_and(|id| after.get(&id).is_some_and(|after| after.get("queue") != job.get("queue")))
    });
    count_out(session, left).await?;
    Ok(answers)
}

/// What became of a settlement, as the job remembers it (clause C2).
fn answer(job: Option<&Document>, settlement: &Settlement, by: By, call: &Uuid) -> Answer {
    let remembered =
        job.and_then(|job| job.get_array("settlements").ok()).map(Vec::as_slice).unwrap_or_default();
    let remembered: Vec<_> = remembered.iter().filter_map(Bson::as_document).collect();
    let is = |past: &Document, field: &str, id: &Uuid| {
        past.get(field).and_then(record::as_uuid).is_some_and(|found| found == *id)
    };
    let claim = settlement.token.claim(settlement.job);
    if remembered.iter().any(|past| is(past, "call", call)) {
        return Answer::Applied;
    }
    match remembered.last() {
        Some(last)
            if is(last, "claim", claim.as_uuid())
                && last.get_str("as").ok() == Some(name(&settlement.verdict, by).as_str()) =>
        {
            Answer::AlreadyApplied
        }
        _ => Answer::Lost,
    }
}

/// The statements: one for all jobs of a claim that end in the same way with nothing of their own to keep.
fn changes(db: &Db, settlements: &[&Settlement], by: By, call: &Uuid) -> Vec<Change> {
    let mut alike: Vec<(&Settlement, Vec<JobId>)> = Vec::new();
    let mut known: HashMap<(Uuid, &'static str), Vec<usize>> = HashMap::new();
    for settlement in settlements {
        let claim = *settlement.token.claim(settlement.job).as_uuid();
        let same = known.entry((claim, settlement.verdict.name())).or_default();
        let fits = |&&group: &&usize| {
            let other = alike[group].0;
            other.verdict == settlement.verdict && other.failure == settlement.failure
        };
        // Those that differ in what they return are not compared with all that came before.
        if let Some(&group) = same.iter().rev().take(4).find(fits) {
            alike[group].1.push(settlement.job);
        } else {
            same.push(alike.len());
            alike.push((settlement, vec![settlement.job]));
        }
    }
    alike.into_iter().map(|(settlement, jobs)| change(db, settlement, &jobs, by, call)).collect()
}

fn change(db: &Db, settlement: &Settlement, jobs: &[JobId], by: By, call: &Uuid) -> Change {
    let claim = settlement.token.claim(settlement.job);
    let mut filter = record::held(record::ids(jobs), claim.as_uuid());
    if by == By::Recoverer {
        filter.insert("$expr", doc! {"$lt": ["$lease_until", db.now()]});
    }
    let remembered = doc! {
        "claim": record::uuid(claim.as_uuid()), "as": name(&settlement.verdict, by), "call": record::uuid(call),
    };
    let mut fields = doc! {"settlements": appended("settlements", remembered)};
    if by == By::Recoverer {
        fields.insert("crashes", doc! {"$add": [count("$crashes"), 1]});
    }
    if matches!(settlement.verdict, Verdict::Release { .. }) {
        let given_back = doc! {"$subtract": [count("$attempt"), 1]};
        fields.insert("attempt", doc! {"$cond": ["$cancel_requested", "$attempt", given_back]});
    }
    if let Some(queue) = elsewhere(settlement) {
        // One that ends stays where it is.
        let waits = doc! {"$eq": ["$next.state", WAITING]};
        fields.insert("queue", doc! {"$cond": [waits, {"$literal": queue.as_str()}, "$queue"]});
    }
    let mut bytes = 0;
    if let Verdict::Succeed { result } = &settlement.verdict {
        bytes += result.as_ref().map_or(0, leasehold_core::Payload::len);
        let result = result.as_ref().map(|result| doc! {"$literal": record::bytes(result)}.into());
        fields.insert("result", result.unwrap_or_else(|| Bson::from("$$REMOVE")));
    }
    if let Some(failure) = &settlement.failure {
        bytes += failure.message.len() + failure.class.len();
        fields.insert("error_class", doc! {"$literal": &failure.class});
        fields.insert("history", history(db, failure));
    }
    Change { bytes, ..Change::many(filter, stages(db, next(db, &settlement.verdict), fields)) }
}

/// The name by which a repeated settlement is recognised. A holder that wants a retry does not mean the recovery
/// that came before it.
fn name(verdict: &Verdict, by: By) -> String {
    match by {
        By::Holder => verdict.name().to_owned(),
        By::Recoverer => format!("recover_{}", verdict.name()),
    }
}

fn next(db: &Db, verdict: &Verdict) -> Next {
    let due = |delay: Duration| db.after(delay);
    let cancelled = Reason::Cancelled.to_string();
    match *verdict {
        Verdict::Succeed { .. } => Next::Ends { state: "succeeded", reason: None },
        Verdict::Fail { reason } => Next::ends("failed", reason),
        Verdict::Cancel { reason } => Next::ends("cancelled", reason),
        // Somebody may have asked for its end while it ran (S5). And a policy asks for no retry when no attempt is
        // left; if one does, the job must not wait for a claim that never comes (C4).
        Verdict::Retry { reason, delay, .. } => {
            let spent = doc! {"$gte": ["$attempt", "$max_attempts"]};
            let which = |cancel: &str, fail: &str, wait: &str| {
                doc! {"$switch": {"branches": [
                    {"case": "$cancel_requested", "then": cancel}, {"case": spent.clone(), "then": fail},
                ], "default": wait}}
            };
            let failed = Reason::MaxAttempts.to_string();
            Next::Depends {
                state: which("cancelled", "failed", WAITING),
                reason: which(&cancelled, &failed, &reason.to_string()),
                due: due(delay),
            }
        }
        Verdict::Release { reason, delay } => Next::Depends {
            state: doc! {"$cond": ["$cancel_requested", "cancelled", WAITING]},
            reason: doc! {"$cond": ["$cancel_requested", cancelled, reason.to_string()]},
            due: if delay.is_zero() { "$due".into() } else { due(delay) },
        },
    }
}

/// What a field lists; nothing if it is no list, as in a record that somebody damaged (clause B3).
fn list(field: &str) -> Document {
    doc! {"$cond": [{"$isArray": field}, field, []]}
}

fn appended(field: &str, item: Document) -> Document {
    let known = list(&format!("${field}"));
    doc! {"$slice": [{"$concatArrays": [known, [item]]}, -REMEMBERED]}
}

/// Adds to the history, which keeps the first failure and the latest (clause S4).
fn history(db: &Db, failure: &NewFailure) -> Document {
    let new = doc! {
        "attempt": "$attempt", "worker": "$worker", "at": db.now(), "reason": failure.reason.to_string(),
        "class": {"$literal": &failure.class}, "message": {"$literal": &failure.message},
    };
    let full = HISTORY as i32;
    let known = list("$history");
    let cut = doc! {"$concatArrays": [{"$slice": ["$$known", 1]}, {"$slice": ["$$known", 2 - full]}]};
    let kept = doc! {"$cond": [{"$gte": [{"$size": "$$known"}, full]}, cut, "$$known"]};
    doc! {"$let": {"vars": {"known": known}, "in": {"$concatArrays": [kept, [new]]}}}
}
