//! Keeps capped logs: see `Backend::append_logs` and `read_logs`.
//!
//! Lines stand in a capped collection, from which the server takes the oldest by itself (clause L1), and which takes no
//! writes in transactions. So an append is two steps, and either may be made again:
//!
//! 1. One conditional write per job, which a stale holder does not get past (C2), moves the head of its log: how far
//!    the lease has written, how much, and which numbers the lines have.
//! 2. The lines are inserted under their numbers. What is there already is passed over (E2).
//!
//! What the server took away it does not tell. So every line names the line before it, of its job and of its worker,
//! and heads name the last one: a reader that does not find what is named has met a gap (L3).

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::{try_join, try_join3};
use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{
    Answer, AppendLogs, LogAppend, LogLine, LogPage, LogSource, NewLine, ReadLogs,
};
use leasehold_core::{Error, ErrorKind, JobId, Timestamp, WorkerId, fail_point};
use mongodb::bson::{Document, doc};
use mongodb::options::ReturnDocument;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::capped;
use crate::error::{DUPLICATE, Done, by_code};
use crate::log_head::{Arrived, Head, Numbered};
use crate::record::{self, Fields, RUNNING};
use crate::session::{Change, Db, Kept};

/// How often heads are read again that others moved meanwhile.
const TRIES: usize = 8;
/// How often it is looked whether the collection is still capped and indexed, while lines are added.
const LOOK: Duration = Duration::from_secs(1);
/// How long a call that removed jobs waits for the end of their lines.
const FORGET: Duration = Duration::from_secs(1);
/// Lines that were numbered so long ago and are not there will not come any more.
const LATE: i64 = 10_000;

/// A running job whose head is to be moved.
struct Moved<'a> {
    index: usize,
    append: &'a LogAppend,
    head: Head,
    lines: Vec<Numbered<'a>>,
    is_new: bool,
}

pub(crate) async fn append_logs(db: &Db, request: &AppendLogs) -> Done<Vec<Answer>> {
    let mut answers = vec![None; request.appends.len()];
    let mut left: Vec<usize> = (0..request.appends.len()).collect();
    for _ in 0..TRIES {
        if left.is_empty() {
            break;
        }
        left = round(db, request, left, &mut answers).await?;
    }
    let answered: Option<Vec<Answer>> = answers.into_iter().collect();
    let why = "others write to the logs of the same jobs; repeat the call";
    Ok(answered.ok_or_else(|| Error::new(ErrorKind::Unavailable, why))?)
}

/// Adds the lines of each job's first append that is left. Others, and those whose heads were moved by somebody else
/// meanwhile, are left for another round.
async fn round(
    db: &Db,
    request: &AppendLogs,
    left: Vec<usize>,
    answers: &mut [Option<Answer>],
) -> Done<Vec<usize>> {
    let most: usize = left.iter().map(|&i| request.appends[i].lines.len()).sum();
    let jobs: HashSet<JobId> = left.iter().map(|&i| request.appends[i].job).collect();
    let (heads, first, ()) = try_join3(heads(db, &jobs), take_numbers(db, most), look_after(db)).await?;
    let now = db.stamp().await?.no_later;
    let (mut next, mut again, mut moved, mut seen) = (first, Vec::new(), Vec::new(), HashSet::new());
    for i in left {
        let append = &request.appends[i];
        if !seen.insert(append.job) {
            again.push(i);
            continue;
        }
        let claim = append.token.claim(append.job);
        let Some(mut head) = heads.get(&append.job).filter(|head| head.claim == *claim.as_uuid()).cloned()
        else {
            answers[i] = Some(Answer::Lost);
            continue;
        };
        let (before, lines) = (head.last, head.take(append, next, &db.caps));
        let is_new = head.last != before;
        if is_new && next <= before {
            // Numbered by somebody else after our numbers were taken.
            again.push(i);
            continue;
        }
        next = next.max(head.last + 1);
        if !is_new {
            let repeated = !append.lines.is_empty();
            answers[i] = Some(if repeated { Answer::AlreadyApplied } else { Answer::Applied });
        }
        moved.push((before, Moved { index: i, append, head, lines, is_new }));
    }
    fail_point!("append_logs::numbered");
    let written = move_heads(db, &moved).await?;
    fail_point!("append_logs::moved");
    let mut moved: Vec<Moved<'_>> = moved.into_iter().map(|(_, moved)| moved).collect();
    moved.retain(|moved| {
        let stands = !moved.is_new || written.contains(&moved.append.job);
        if !stands {
            again.push(moved.index);
        } else if moved.is_new {
            answers[moved.index] = Some(Answer::Applied);
        }
        stands
    });
    insert(db, &moved, now).await?;
    again.sort_unstable();
    Ok(again)
}

/// Takes so many numbers from the sequence of all lines, and tells the first. What a call does not use is never used.
pub(crate) async fn take_numbers(db: &Db, n: usize) -> Done<i64> {
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    if n == 0 {
        return Ok(0);
    }
    let counted = db
        .of(Kept::Meta)
        .find_one_and_update(doc! {"_id": "log_sequence"}, doc! {"$inc": {"value": n}})
        .upsert(true)
        .return_document(ReturnDocument::After)
        .await?;
    let value = counted.as_ref().and_then(|counted| record::whole(counted.get("value")));
    Ok(value.ok_or_else(|| Error::corrupt("the sequence of lines is no number"))? - n + 1)
}

/// Looks now and then whether the collection is as it has to be. What cannot be mended stops no line (clause L4).
async fn look_after(db: &Db) -> Done<()> {
    let due = {
        let mut seen = db.logs_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let due = seen.is_none_or(|seen| seen.elapsed() >= LOOK);
        if due {
            *seen = Some(Instant::now());
        }
        due
    };
    if due && let Err(fault) = capped::mend(db, Kept::Logs).await {
        tracing::warn!(?fault, "the collection of log lines cannot be looked after");
    }
    Ok(())
}

/// The heads of the jobs that run, as the next write will meet them.
async fn heads(db: &Db, jobs: &HashSet<JobId>) -> Done<HashMap<JobId, Head>> {
    let pipeline = vec![
        doc! {"$match": {"_id": {"$in": record::ids(jobs)}, "state": RUNNING}},
        doc! {"$project": {"claim": 1, "worker": 1, "attempt": 1, "queue": 1, "log": 1}},
        doc! {"$lookup": {
            "from": db.name(Kept::LogHeads), "localField": "worker", "foreignField": "_id", "as": "of_worker",
        }},
    ];
    let found: Vec<Document> = db.fresh(Kept::Jobs).aggregate(pipeline).await?.try_collect().await?;
    Ok(found.iter().filter_map(|job| Some((record::id(job)?, Head::read(job)?))).collect())
}

/// Moves the heads that have new lines, each if nobody else did, and tells whose were moved.
async fn move_heads(db: &Db, moved: &[(i64, Moved<'_>)]) -> Done<HashSet<JobId>> {
    let new = || moved.iter().filter(|(_, moved)| moved.is_new);
    let changes: Vec<_> = new().map(|(before, moved)| moved.head.moved(moved.append.job, *before)).collect();
    let wanted = changes.len() as u64;
    if db.plain().update(Kept::Jobs, changes).await?.whole()? == wanted {
        return Ok(new().map(|(_, moved)| moved.append.job).collect());
    }
    let jobs = new().map(|(_, moved)| moved.append.job).collect();
    let heads = heads(db, &jobs).await?;
    let stands = |moved: &Moved<'_>| {
        let head = heads.get(&moved.append.job);
        head.is_some_and(|head| head.claim == moved.head.claim && head.last == moved.head.last)
    };
    Ok(new().filter(|(_, moved)| stands(moved)).map(|(_, moved)| moved.append.job).collect())
}

/// Inserts the lines that are not there yet, and removes those that fell to the cap of their job.
async fn insert(db: &Db, moved: &[Moved<'_>], now: Timestamp) -> Done<()> {
    let mut workers: HashMap<Uuid, i64> = HashMap::new();
    let (mut lines, mut fallen) = (Vec::new(), Vec::new());
    // In the order of their numbers, so that each names the one before it of the same worker.
    let mut numbered: Vec<_> = moved.iter().flat_map(|m| m.lines.iter().map(move |line| (m, line))).collect();
    numbered.sort_unstable_by_key(|(_, line)| line.sequence);
    for (moved, line) in numbered {
        let worker = moved.head.worker.map(|worker| workers.entry(worker).or_insert(moved.head.worker_last));
        // Of a line that comes late it is not known which was before it.
        let before = worker.as_ref().map(|last| **last).filter(|last| *last < line.sequence).unwrap_or(0);
        if let Some(last) = worker {
            *last = line.sequence.max(*last);
        }
        lines.push(moved.head.document(moved.append.job, line, before, now));
    }
    for moved in moved.iter().filter(|moved| moved.head.trims) {
        fallen.push(moved.head.fallen(moved.append.job));
    }
    write(db, lines, workers).await?;
    if !fallen.is_empty() {
        db.plain().delete_all(Kept::Logs, fallen).await?;
    }
    Ok(())
}

/// Inserts lines that are not there yet, and notes which was the last of each worker.
async fn write(db: &Db, lines: Vec<Document>, workers: HashMap<Uuid, i64>) -> Done<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let ends = workers.into_iter().map(|(worker, last)| {
        let end = doc! {"$max": {"last": last}, "$currentDate": {"at": true}};
        let mut change = Change::one(doc! {"_id": record::uuid(&worker)}, end);
        change.upsert = true;
        change
    });
    let (mut lines_session, mut ends_session) = (db.plain(), db.plain());
    let (inserted, _) = try_join(
        lines_session.insert(Kept::Logs, lines),
        ends_session.update(Kept::LogHeads, ends.collect()),
    )
    .await?;
    if let Some((_, code, what)) = inserted.failed.iter().find(|(_, code, _)| *code != DUPLICATE) {
        let (kind, message) = by_code(*code, what);
        return Err(Error::new(kind, message).into());
    }
    Ok(())
}

/// Inserts the lines that jobs came with from another store, as far as they are not there yet.
pub(crate) async fn insert_arrived<'a>(db: &Db, logs: impl Iterator<Item = &'a Arrived<'a>>) -> Done<()> {
    let (mut lines, mut workers) = (Vec::new(), HashMap::new());
    for log in logs {
        lines.extend(log.documents());
        for (worker, last) in log.workers() {
            let known = workers.entry(worker).or_insert(last);
            *known = last.max(*known);
        }
    }
    if !lines.is_empty() {
        look_after(db).await?;
    }
    write(db, lines, workers).await
}

/// Removes the lines of jobs that are gone. What stays because of an error is shown to nobody who asks for the job, and
/// goes with the oldest.
pub(crate) async fn forget(db: &Db, jobs: &HashSet<JobId>) {
    if jobs.is_empty() {
        return;
    }
    let of_jobs = doc! {"job": {"$in": record::ids(jobs)}};
    // When the time is up the server goes on with it; whoever removed the jobs need not wait.
    if let Ok(Err(fault)) = timeout(FORGET, db.plain().delete(Kept::Logs, of_jobs)).await {
        tracing::warn!(?fault, "lines of jobs that were removed stay for a while");
    }
}

pub(crate) async fn read_logs(db: &Db, request: ReadLogs) -> Done<LogPage> {
    let after = i64::try_from(request.after).unwrap_or(i64::MAX);
    let (kept, field, id, last, at) = match request.source {
        LogSource::Job(job) => (Kept::Jobs, "job", record::uuid(job.as_uuid()), "$log.last", "$log.at"),
        LogSource::Worker(worker) => {
            (Kept::LogHeads, "worker", record::uuid(worker.as_uuid()), "$last", "$at")
        }
    };
    let limit = at_most(request.limit);
    // The head is read first: every line that it names has been numbered by then.
    let mut pipeline = vec![
        doc! {"$match": {"_id": id.clone()}},
        doc! {"$project": {"head": {"last": last, "age": {"$subtract": ["$$NOW", at]}}}},
    ];
    if limit > 0 {
        let lines = vec![
            doc! {"$match": {field: id, "_id": {"$gt": after}}},
            doc! {"$sort": {"_id": 1}},
            doc! {"$limit": limit},
        ];
        pipeline.push(doc! {"$unionWith": {"coll": db.name(Kept::Logs), "pipeline": lines}});
    }
    let mut found: Vec<Document> = db.fresh(kept).aggregate(pipeline).await?.try_collect().await?;
    let head = match found.first().is_some_and(|first| first.contains_key("head")) {
        true => Some(found.remove(0)),
        // The log of a job that is gone is gone too, whatever is still to be removed of it.
        false if kept == Kept::Jobs => return Ok(LogPage::default()),
        false => None,
    };
    let mut page = LogPage { lines: Vec::with_capacity(found.len()), gap: false };
    let mut seen = after;
    for document in &found {
        let before = document.get_document("before").ok().and_then(|before| record::whole(before.get(field)));
        page.gap |= before.unwrap_or(0) > seen;
        page.lines.push(line(document)?);
        seen = record::whole(document.get("_id")).unwrap_or(seen);
    }
    if let Some(head) = head.as_ref().and_then(|head| head.get_document("head").ok())
        && found.len() < request.limit
    {
        page.gap |= lacks(db, head, seen).await?;
    }
    Ok(page)
}

/// Whether lines after the last that was found were there, and are not just coming.
async fn lacks(db: &Db, head: &Document, seen: i64) -> Done<bool> {
    let last = record::whole(head.get("last")).unwrap_or(0);
    if last <= seen {
        return Ok(false);
    }
    if record::whole(head.get("age")).is_some_and(|age| age > LATE) {
        return Ok(true);
    }
    // Where later lines stand and none that are as old, the server has taken those.
    let logs = db.fresh(Kept::Logs);
    let of = |range: Document| logs.find_one(doc! {"_id": range}).projection(doc! {"_id": 1}).into_future();
    let (older, newer) = try_join(of(doc! {"$gt": 0, "$lte": last}), of(doc! {"$gt": last})).await?;
    Ok(older.is_none() && newer.is_some())
}

fn line(document: &Document) -> Done<LogLine> {
    let fields = Fields(document);
    let job =
        fields.uuid("job").map_err(Error::corrupt)?.ok_or_else(|| Error::corrupt("a line of no job"))?;
    let level = fields.text("level").map_err(Error::corrupt)?.unwrap_or_default();
    let message = fields.text("message").map_err(Error::corrupt)?.unwrap_or_default().to_owned();
    Ok(LogLine::new(
        fields.number("_id").map_err(Error::corrupt)?,
        JobId::from_uuid(job),
        fields.number("attempt").map_err(Error::corrupt)?,
        fields.uuid("worker").map_err(Error::corrupt)?.map(WorkerId::from_uuid),
        fields.moment("at").map_err(Error::corrupt)?.unwrap_or_default(),
        NewLine::read(level, message)?,
    ))
}
