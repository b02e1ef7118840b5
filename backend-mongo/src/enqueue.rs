//! Takes jobs in: see `Backend::enqueue`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{Error, ErrorKind, JobId, NewJob, UniqueKey, fail_point};
use mongodb::ClientSession;
use mongodb::bson::{Document, doc};
use mongodb::error::{ErrorKind as DriverKind, UNKNOWN_TRANSACTION_COMMIT_RESULT};

use crate::control::register;
use crate::error::{DUPLICATE, Done, by_code};
use crate::hour::Stamp;
use crate::record::{self, OFF_TURN, document};
use crate::replace;
use crate::session::{Change, Db, Kept};

/// How often a job is tried again whose key was freed and taken while it came in.
pub(crate) const TRIES: usize = 20;

pub(crate) async fn enqueue(db: &Db, request: Enqueue) -> Done<Vec<Enqueued>> {
    let jobs = &request.jobs;
    register(db, jobs.iter().map(|job| &job.queue)).await?;
    free_keys(db, &keys(jobs)).await?;
    let mut answers: Vec<Option<Enqueued>> = jobs.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..jobs.len()).collect();
    for _ in 0..TRIES {
        let replaced = replace::replaced(db, left.iter().map(|&i| &jobs[i])).await?;
        for &i in &left {
            let job = replaced.get(&jobs[i].id);
            answers[i] = job.map(|job| Enqueued { job: *job, answer: EnqueueAnswer::Replaced });
        }
        left.retain(|&i| answers[i].is_none());
        if left.is_empty() {
            break;
        }
        let now = db.stamp().await?;
        let documents = left.iter().map(|&i| document(&jobs[i], now)).collect::<Done<Vec<_>>>()?;
        let refused: Vec<usize> = insert(db, documents).await?.into_iter().map(|place| left[place]).collect();
        for &i in left.iter().filter(|i| !refused.contains(i)) {
            answers[i] = Some(Enqueued { job: jobs[i].id, answer: EnqueueAnswer::Created });
        }
        left = explain(db, jobs, refused, &mut answers).await?;
    }
    tell(db, jobs, &answers);
    let answer = |(job, answer): (&NewJob, Option<Enqueued>)| {
        let why = "others keep taking and freeing the unique key; repeat the call";
        let refused = || EnqueueAnswer::Refused(Error::new(ErrorKind::Unavailable, why));
        answer.unwrap_or_else(|| Enqueued { job: job.id, answer: refused() })
    };
    Ok(jobs.iter().zip(answers).map(answer).collect())
}

/// Takes jobs in inside the caller's own transaction (clause P5).
pub(crate) async fn enqueue_in(db: &Db, session: &mut ClientSession, jobs: &[NewJob]) -> Done<Vec<Enqueued>> {
    register(db, jobs.iter().map(|job| &job.queue)).await?;
    let now = db.stamp().await?;
    let all = db.of(Kept::Jobs);
    let keys = keys(jobs);
    if !keys.is_empty() {
        all.update_many(over(db, &keys), unset_key()).session(&mut *session).await?;
    }
    let mut answers = Vec::with_capacity(jobs.len());
    for run in jobs.chunk_by(|a, b| replace::is_plain(a) && replace::is_plain(b)) {
        if let Some(job) = run.first().filter(|job| !replace::is_plain(job))
            && let Some((job, answer)) = replace::replace_in(db, session, job).await?
        {
            answers.push(Enqueued { job, answer });
        } else {
            answers.append(&mut insert_in(db, session, run, now).await?);
        }
    }
    Ok(answers)
}

/// Takes in jobs none of which replaces another.
async fn insert_in(db: &Db, session: &mut ClientSession, jobs: &[NewJob], now: Stamp) -> Done<Vec<Enqueued>> {
    let (all, keys) = (db.of(Kept::Jobs), keys(jobs));
    // A transaction ends with its first error: what would be refused is looked for beforehand.
    let mut filter = vec![doc! {"_id": {"$in": record::ids(jobs.iter().map(|job| &job.id))}}];
    filter.push(doc! {"unique_key": {"$type": "string", "$in": keys}});
    let mut found =
        all.find(doc! {"$or": filter}).projection(doc! {"unique_key": 1}).session(&mut *session).await?;
    let (mut there, mut held) = (HashSet::new(), HashMap::new());
    while let Some(document) = found.next(session).await.transpose()? {
        let Some(id) = record::id(&document) else { continue };
        there.insert(id);
        if let Ok(key) = document.get_str("unique_key") {
            held.insert(key.to_owned(), id);
        }
    }
    let (mut answers, mut documents) = (Vec::with_capacity(jobs.len()), Vec::new());
    for job in jobs {
        let key = job.options.unique.as_ref().map(|unique| unique.key.as_str());
        let answer = if there.contains(&job.id) {
            Enqueued { job: job.id, answer: EnqueueAnswer::Existing }
        } else if let Some(holder) = key.and_then(|key| held.get(key)) {
            Enqueued { job: *holder, answer: EnqueueAnswer::Held }
        } else {
            there.insert(job.id);
            held.extend(key.map(|key| (key.to_owned(), job.id)));
            let mut document = document(job, now)?;
            // Its due time will have passed when the caller commits.
            document.insert(OFF_TURN, true);
            documents.push(document);
            Enqueued { job: job.id, answer: EnqueueAnswer::Created }
        };
        answers.push(answer);
    }
    if !documents.is_empty() {
        all.insert_many(documents).session(session).await?;
    }
    Ok(answers)
}

/// Commits the caller's transaction, again and again as long as the server's answer is missing. The caller sets the end.
pub(crate) async fn commit(session: &mut ClientSession) -> Done<()> {
    loop {
        match session.commit_transaction().await {
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return Ok(other?),
        }
    }
}

fn keys(jobs: &[NewJob]) -> Vec<&str> {
    jobs.iter().filter_map(|job| Some(job.options.unique.as_ref()?.key.as_str())).collect()
}

/// Inserts jobs and tells the places of those that the server refused because an id or a key is there.
pub(crate) async fn insert(db: &Db, documents: Vec<Document>) -> Done<Vec<usize>> {
    let mut session = db.causal().await?;
    let before = session.operation_time();
    fail_point!("enqueue::before_send");
    let inserted = db.of(Kept::Jobs).insert_many(documents).ordered(false).session(&mut session).await;
    fail_point!("enqueue::acted");
    let Err(error) = inserted else {
        db.wrote_at(session.operation_time());
        return Ok(Vec::new());
    };
    let after = session.operation_time();
    if after != before {
        // The server took a part of what the driver sent in several.
        db.wrote_at(after);
    }
    let DriverKind::InsertMany(failure) = error.kind.as_ref() else { return Err(error.into()) };
    db.wrote_at(session.operation_time());
    if failure.write_concern_error.is_some() {
        return Err(error.into());
    }
    let mut refused = Vec::new();
    for error in failure.write_errors.iter().flatten() {
        if error.code != DUPLICATE {
            let (kind, message) = by_code(error.code, &error.message);
            return Err(Error::new(kind, message).into());
        }
        refused.push(error.index);
    }
    Ok(refused)
}

/// Finds out why jobs were refused; those for which the reason has gone by now are returned.
async fn explain(
    db: &Db,
    jobs: &[NewJob],
    refused: Vec<usize>,
    answers: &mut [Option<Enqueued>],
) -> Done<Vec<usize>> {
    if refused.is_empty() {
        return Ok(refused);
    }
    let ids = record::ids(refused.iter().map(|&i| &jobs[i].id));
    let there = record::load(db, ids, &[]).await?;
    let wanted: Vec<_> =
        refused.iter().filter_map(|&i| Some(jobs[i].options.unique.as_ref()?.key.as_str())).collect();
    let holders = holders(db, &wanted).await?;
    let mut again = Vec::new();
    for i in refused {
        let job = &jobs[i];
        let key = job.options.unique.as_ref().map(|unique| unique.key.as_str());
        answers[i] = if there.contains_key(&job.id) {
            Some(Enqueued { job: job.id, answer: EnqueueAnswer::Existing })
        } else {
            match key.and_then(|key| holders.get(key)) {
                Some(holder) if replace::is_plain(job) => {
                    Some(Enqueued { job: *holder, answer: EnqueueAnswer::Held })
                }
                Some(holder) => {
                    let answer = replace::replace(db, *holder, job).await?;
                    answer.map(|answer| Enqueued { job: *holder, answer })
                }
                None => None,
            }
        };
        if answers[i].is_none() {
            again.push(i);
        }
    }
    Ok(again)
}

/// Makes keys available whose period is over (clause P4).
pub(crate) async fn free_keys(db: &Db, keys: &[&str]) -> Done<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let freed = Change::many(over(db, keys), unset_key());
    db.plain().update(Kept::Jobs, vec![freed]).await?.whole().map(drop)
}

/// The jobs that hold keys whose period is over.
fn over(db: &Db, keys: &[&str]) -> Document {
    doc! {
        "unique_key": {"$type": "string", "$in": keys},
        "unique_until": {"$type": "date"},
        "$expr": {"$lt": ["$unique_until", db.now()]},
    }
}

fn unset_key() -> Document {
    doc! {"$unset": {"unique_key": 1, "unique_until": 1}}
}

/// Who holds these unique keys.
pub(crate) async fn holders(db: &Db, keys: &[&str]) -> Done<HashMap<String, JobId>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let pipeline = vec![
        doc! {"$match": {"unique_key": {"$type": "string", "$in": keys}}},
        doc! {"$project": {"unique_key": 1}},
    ];
    let found = db.plain().read(Kept::Jobs, pipeline).await?;
    let holder = |document: &Document| {
        let key = UniqueKey::new(document.get_str("unique_key").ok()?).ok()?;
        Some((key.into(), record::id(document)?))
    };
    Ok(found.iter().filter_map(holder).collect())
}

/// Tells watchers of the queues in which jobs wait now.
fn tell(db: &Db, jobs: &[NewJob], answers: &[Option<Enqueued>]) {
    let created = |answer: &Option<Enqueued>| answer.as_ref().is_some_and(Enqueued::is_created);
    let queues: BTreeSet<_> =
        jobs.iter().zip(answers).filter(|(_, a)| created(a)).map(|(job, _)| job.queue.as_str()).collect();
    for queue in queues {
        db.signals.tell("waiting", queue);
    }
    let replaced = answers.iter().flatten().filter(|told| matches!(told.answer, EnqueueAnswer::Replaced));
    db.signals.look_at(Vec::new(), replaced.map(|told| told.job).collect());
}
