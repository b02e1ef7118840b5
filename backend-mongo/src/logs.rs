//! Keeps capped logs: see `Backend::append_logs` and `read_logs`.
//!
//! What is kept of a job's log is counted in the job, so that appending looks at no line but those that it adds and
//! those that fall to a cap (clause L1). One sequence numbers the lines of all jobs.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use leasehold_core::backend::{
    Answer, AppendLogs, LogAppend, LogLine, LogPage, LogSource, NewLine, ReadLogs,
};
use leasehold_core::{JobId, Timestamp, WorkerId};
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;
use uuid::Uuid;

use crate::error::Done;
use crate::record::{self, Fields, RUNNING, corrupt};
use crate::session::{Change, Db, Kept, Session, date};

/// Every line counts as its message and so many bytes more, so that empty lines are bounded too.
const LINE: i64 = 64;
/// How many lines one call drops for the cap of the whole store at most.
const SHED: i64 = 10_000;

/// A running job that lines are added to: what is kept of its log, and which lines of its lease were taken in.
struct Held {
    claim: Uuid,
    worker: Option<Uuid>,
    attempt: i64,
    queue: String,
    position: i64,
    lines: i64,
    bytes: i64,
    dropped: i64,
}

pub(crate) async fn append_logs(db: &Db, request: &AppendLogs) -> Done<Vec<Answer>> {
    let total: usize = request.appends.iter().map(|append| append.lines.len()).sum();
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    let last = if total == 0 { 0 } else { take_numbers(db, total).await? };
    let now = db.stamp().await?;
    let mut session = db.atomic().await?;
    let (answers, logged) = loop {
        let outcome = try_append(&mut session, request, last - total, now).await;
        if let Some(done) = session.end(outcome).await? {
            break done;
        }
    };
    for (job, queue) in logged {
        db.signals.tell(doc! {"logged": record::uuid(job.as_uuid()), "queue": queue});
    }
    let bytes: usize =
        request.appends.iter().flat_map(|append| &append.lines).map(|l| size(l) as usize).sum();
    let watch = (db.caps.store_bytes / 64).clamp(1, 1 << 20) as usize;
    if db.logged.fetch_add(bytes, Ordering::Relaxed) + bytes > watch {
        db.logged.store(0, Ordering::Relaxed);
        shed(db).await?;
    }
    Ok(answers)
}

/// Takes so many numbers from the sequence and tells the last of them. What a call does not use is never used.
async fn take_numbers(db: &Db, n: i64) -> Done<i64> {
    let counted = db
        .of(Kept::Meta)
        .find_one_and_update(doc! {"_id": "log_sequence"}, doc! {"$inc": {"value": n}})
        .upsert(true)
        .return_document(ReturnDocument::After)
        .await?;
    let value = counted.as_ref().and_then(|counted| record::whole(counted.get("value")));
    Ok(value.ok_or_else(|| corrupt("the sequence of lines is no number"))?)
}

fn size(line: &NewLine) -> i64 {
    i64::try_from(line.message.len()).unwrap_or(i64::MAX).saturating_add(LINE)
}

async fn try_append(
    session: &mut Session<'_>,
    request: &AppendLogs,
    mut sequence: i64,
    now: Timestamp,
) -> Done<(Vec<Answer>, Vec<(JobId, String)>)> {
    let mut jobs = held(session, request).await?;
    let (mut answers, mut lines) = (Vec::with_capacity(request.appends.len()), Vec::new());
    let mut logged = Vec::new();
    for append in &request.appends {
        let claim = append.token.claim(append.job);
        let Some(job) = jobs.get_mut(&append.job).filter(|job| job.claim == *claim.as_uuid()) else {
            answers.push(Answer::Lost);
            continue;
        };
        let new = new_lines(job, append);
        let again = new.is_empty() && !append.lines.is_empty();
        answers.push(if again { Answer::AlreadyApplied } else { Answer::Applied });
        for line in new {
            sequence += 1;
            lines.push(document(append.job, job, line, sequence, now));
        }
        if !new.is_empty() {
            logged.push((append.job, job.queue.clone()));
        }
    }
    session.insert(Kept::Logs, lines).await?.whole()?;
    let caps = session.db.caps;
    let cap = |cap: u64| i64::try_from(cap).unwrap_or(i64::MAX);
    let mut heads = Vec::new();
    for (id, _) in &logged {
        let Some(job) = jobs.get_mut(id) else { continue };
        let (over, bytes_over) = (job.lines - cap(caps.job_lines), job.bytes - cap(caps.job_bytes));
        if over > 0 || bytes_over > 0 {
            trim(session, *id, job, over, bytes_over).await?;
        }
        heads.push(head(*id, job));
    }
    session.update(Kept::Jobs, heads).await?.whole()?;
    Ok((answers, logged))
}

/// The jobs that run, with what their logs hold.
async fn held(session: &mut Session<'_>, request: &AppendLogs) -> Done<HashMap<JobId, Held>> {
    let ids = record::ids(request.appends.iter().map(|append| &append.job));
    let pipeline = vec![
        doc! {"$match": {"_id": {"$in": ids}, "state": RUNNING}},
        doc! {"$project": {"claim": 1, "worker": 1, "attempt": 1, "queue": 1, "log": 1}},
    ];
    let found = session.read(Kept::Jobs, pipeline).await?;
    Ok(found.iter().filter_map(|job| Some((record::id(job)?, held_by(job)?))).collect())
}

fn held_by(job: &Document) -> Option<Held> {
    let claim = record::as_uuid(job.get("claim")?)?;
    let log = job.get_document("log").cloned().unwrap_or_default();
    let number = |name: &str| record::whole(log.get(name)).unwrap_or(0);
    let same_lease = log.get("claim").and_then(record::as_uuid) == Some(claim);
    Some(Held {
        claim,
        worker: job.get("worker").and_then(record::as_uuid),
        attempt: record::whole(job.get("attempt")).unwrap_or(0),
        queue: job.get_str("queue").unwrap_or_default().to_owned(),
        position: if same_lease { number("position") } else { 0 },
        lines: number("lines"),
        bytes: number("bytes"),
        dropped: number("dropped"),
    })
}

/// The lines that were not taken in from this lease before (clause E2).
fn new_lines<'a>(job: &mut Held, append: &'a LogAppend) -> &'a [NewLine] {
    let start = i64::try_from(append.position).unwrap_or(i64::MAX);
    let known = usize::try_from(job.position.saturating_sub(start)).unwrap_or(0).min(append.lines.len());
    job.position = job.position.max(start.saturating_add_unsigned(append.lines.len() as u64));
    let new = &append.lines[known..];
    job.lines += new.len() as i64;
    job.bytes += new.iter().map(size).sum::<i64>();
    new
}

fn document(id: JobId, job: &Held, line: &NewLine, sequence: i64, now: Timestamp) -> Document {
    doc! {
        "_id": sequence,
        "job": record::uuid(id.as_uuid()),
        "worker": job.worker.as_ref().map(record::uuid),
        "attempt": job.attempt,
        "at": date(now),
        "level": <&str>::from(line.level),
        "message": &line.message,
        "bytes": size(line),
    }
}

fn head(id: JobId, job: &Held) -> Change {
    let claim = record::uuid(&job.claim);
    let log = doc! {
        "claim": claim.clone(), "position": job.position, "lines": job.lines, "bytes": job.bytes,
        "dropped": job.dropped,
    };
    let filter = doc! {"_id": record::uuid(id.as_uuid()), "state": RUNNING, "claim": claim};
    Change::one(filter, doc! {"$set": {"log": log}})
}

/// Drops at least so many lines and bytes of a job, the oldest first, and remembers what was dropped (clause L3).
async fn trim(
    session: &mut Session<'_>,
    id: JobId,
    job: &mut Held,
    mut lines: i64,
    mut bytes: i64,
) -> Done<()> {
    let of = doc! {"job": record::uuid(id.as_uuid())};
    // No line counts for less than its fixed part, so this many are enough.
    let most = lines.max(bytes / LINE) + 1;
    let pipeline = vec![
        doc! {"$match": of.clone()},
        doc! {"$sort": {"_id": 1}},
        doc! {"$limit": most},
        doc! {"$project": {"bytes": 1, "worker": 1}},
    ];
    let mut workers: HashMap<Uuid, i64> = HashMap::new();
    for line in session.read(Kept::Logs, pipeline).await? {
        if lines <= 0 && bytes <= 0 {
            break;
        }
        let size = record::whole(line.get("bytes")).unwrap_or(LINE);
        job.dropped = record::whole(line.get("_id")).unwrap_or(job.dropped);
        (lines, bytes) = (lines - 1, bytes - size);
        (job.lines, job.bytes) = (job.lines - 1, job.bytes - size);
        workers.extend(line.get("worker").and_then(record::as_uuid).map(|worker| (worker, job.dropped)));
    }
    let mut dropped = of;
    dropped.insert("_id", doc! {"$lte": job.dropped});
    session.delete(Kept::Logs, dropped).await?;
    remember(session, workers).await
}

/// Remembers the last line of each worker that fell to a cap.
async fn remember(session: &mut Session<'_>, workers: HashMap<Uuid, i64>) -> Done<()> {
    let change = |(worker, last): (Uuid, i64)| {
        let mut change = Change::one(doc! {"_id": record::uuid(&worker)}, doc! {"$max": {"dropped": last}});
        change.upsert = true;
        change
    };
    session.update(Kept::LogHeads, workers.into_iter().map(change).collect()).await?.whole().map(drop)
}

/// Drops the oldest lines of all jobs if the whole has become too large (clause L1).
async fn shed(db: &Db) -> Done<()> {
    let stats =
        vec![doc! {"$collStats": {"storageStats": {}}}, doc! {"$project": {"size": "$storageStats.size"}}];
    let stats = db.plain().read(Kept::Logs, stats).await?;
    let size = stats.first().and_then(|stats| record::whole(stats.get("size"))).unwrap_or(0);
    let over = size - i64::try_from(db.caps.store_bytes).unwrap_or(i64::MAX);
    if over <= 0 {
        return Ok(());
    }
    let mut session = db.atomic().await?;
    loop {
        let outcome = drop_oldest(&mut session, over).await;
        if session.end(outcome).await?.is_some() {
            return Ok(());
        }
    }
}

async fn drop_oldest(session: &mut Session<'_>, mut over: i64) -> Done<()> {
    let pipeline = vec![
        doc! {"$sort": {"_id": 1}},
        doc! {"$limit": SHED},
        doc! {"$project": {"job": 1, "worker": 1, "bytes": 1}},
    ];
    let mut jobs: HashMap<Uuid, (i64, i64, i64)> = HashMap::new();
    let (mut workers, mut cut) = (HashMap::new(), None);
    for line in session.read(Kept::Logs, pipeline).await? {
        if over <= 0 {
            break;
        }
        let (Some(last), Some(bytes)) = (record::whole(line.get("_id")), record::whole(line.get("bytes")))
        else {
            continue;
        };
        over -= bytes;
        cut = Some(last);
        if let Some(job) = line.get("job").and_then(record::as_uuid) {
            let (lines, size, dropped) = jobs.entry(job).or_default();
            (*lines, *size, *dropped) = (*lines + 1, *size + bytes, last);
        }
        workers.extend(line.get("worker").and_then(record::as_uuid).map(|worker| (worker, last)));
    }
    let Some(cut) = cut else { return Ok(()) };
    session.delete(Kept::Logs, doc! {"_id": {"$lte": cut}}).await?;
    let change = |(job, (lines, bytes, dropped)): (Uuid, (i64, i64, i64))| {
        let less =
            doc! {"$inc": {"log.lines": -lines, "log.bytes": -bytes}, "$max": {"log.dropped": dropped}};
        Change::one(doc! {"_id": record::uuid(&job)}, less)
    };
    session.update(Kept::Jobs, jobs.into_iter().map(change).collect()).await?.whole()?;
    remember(session, workers).await
}

pub(crate) async fn read_logs(db: &Db, request: ReadLogs) -> Done<LogPage> {
    let after = i64::try_from(request.after).unwrap_or(i64::MAX);
    let (field, source) = match request.source {
        LogSource::Job(job) => ("job", record::uuid(job.as_uuid())),
        LogSource::Worker(worker) => ("worker", record::uuid(worker.as_uuid())),
    };
    let mut page = LogPage::default();
    if request.limit > 0 {
        let pipeline = vec![
            doc! {"$match": {field: source.clone(), "_id": {"$gt": after}}},
            doc! {"$sort": {"_id": 1}},
            doc! {"$limit": i64::try_from(request.limit).unwrap_or(i64::MAX)},
        ];
        page.lines = db.plain().read(Kept::Logs, pipeline).await?.iter().map(line).collect::<Done<_>>()?;
    }
    // Looked at last, so that no line which fell to a cap meanwhile is missed without a word.
    page.gap = dropped(db, request.source, source).await? > after;
    Ok(page)
}

async fn dropped(db: &Db, which: LogSource, source: Bson) -> Done<i64> {
    let (kept, field) = match which {
        LogSource::Job(_) => (Kept::Jobs, "$log.dropped"),
        LogSource::Worker(_) => (Kept::LogHeads, "$dropped"),
    };
    let pipeline = vec![doc! {"$match": {"_id": source}}, doc! {"$project": {"dropped": field}}];
    let found = db.plain().read(kept, pipeline).await?;
    Ok(found.first().and_then(|head| record::whole(head.get("dropped"))).unwrap_or(0))
}

fn line(document: &Document) -> Done<LogLine> {
    let fields = Fields(document);
    let job = fields.uuid("job").map_err(corrupt)?.ok_or_else(|| corrupt("a line of no job"))?;
    let level = fields.text("level").map_err(corrupt)?.unwrap_or_default();
    let level = level.parse().map_err(|_| corrupt(format!("there is no log level {level:?}")))?;
    let message = fields.text("message").map_err(corrupt)?.unwrap_or_default().to_owned();
    Ok(LogLine::new(
        fields.number("_id").map_err(corrupt)?,
        JobId::from_uuid(job),
        fields.number("attempt").map_err(corrupt)?,
        fields.uuid("worker").map_err(corrupt)?.map(WorkerId::from_uuid),
        fields.moment("at").map_err(corrupt)?.unwrap_or_default(),
        NewLine { level, message },
    ))
}
