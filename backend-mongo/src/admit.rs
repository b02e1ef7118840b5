//! Takes jobs of another store in: see `Backend::admit`.
//!
//! A job comes in with the head of its log, which names the numbers of its lines; the lines are inserted under these. So a
//! call that was cut off in between is made whole by the next one, as an append is.

use std::collections::HashMap;

use leasehold_core::backend::{Admit, Admitted, Arrival};
use leasehold_core::{Error, ErrorKind, JobId};
use mongodb::bson::Document;

use crate::control::register;
use crate::enqueue::{TRIES, free_keys, holders, insert};
use crate::error::Done;
use crate::log_head::Arrived;
use crate::logs;
use crate::record::{self, admitted};
use crate::session::Db;

pub(crate) async fn admit(db: &Db, request: &Admit) -> Done<Vec<Admitted>> {
    let jobs = &request.jobs;
    register(db, jobs.iter().map(|arrival| &arrival.job.queue)).await?;
    let now = db.stamp().await?;
    let key = |arrival: &Arrival| arrival.job.held_key(now.no_later).map(|key| key.as_str().to_owned());
    let keys: Vec<Option<String>> = jobs.iter().map(key).collect();
    free_keys(db, &keys.iter().flatten().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut answers: Vec<Option<Admitted>> = jobs.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..jobs.len()).collect();
    for _ in 0..TRIES {
        if left.is_empty() {
            break;
        }
        let logs = arrived(db, jobs, &left).await?;
        let document = |&i: &usize| admitted(&jobs[i], now, logs.get(&jobs[i].job.id));
        let documents = left.iter().map(document).collect::<Done<Vec<_>>>()?;
        let refused: Vec<usize> = insert(db, documents).await?.into_iter().map(|place| left[place]).collect();
        let created: Vec<usize> = left.iter().copied().filter(|i| !refused.contains(i)).collect();
        for &i in &created {
            answers[i] = Some(Admitted::Created);
        }
        logs::insert_arrived(db, created.iter().filter_map(|&i| logs.get(&jobs[i].job.id))).await?;
        left = explain(db, jobs, &keys, refused, &mut answers).await?;
    }
    let waiting = jobs.iter().zip(&answers).filter(|(_, answer)| matches!(answer, Some(Admitted::Created)));
    waiting.for_each(|(arrival, _)| db.signals.tell("waiting", arrival.job.queue.as_str()));
    let why = "others keep taking and freeing the unique key; repeat the call";
    let refused = || Admitted::Refused(Error::new(ErrorKind::Unavailable, why));
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(refused)).collect())
}

/// The logs of these jobs under numbers of this store.
async fn arrived<'a>(db: &Db, jobs: &'a [Arrival], which: &[usize]) -> Done<HashMap<JobId, Arrived<'a>>> {
    let with_lines = || which.iter().map(|&i| &jobs[i]).filter(|arrival| !arrival.logs.is_empty());
    let mut next = logs::take_numbers(db, with_lines().map(|arrival| arrival.logs.len()).sum()).await?;
    let mut arrived = HashMap::new();
    for Arrival { job, logs } in with_lines() {
        arrived.insert(job.id, Arrived::new(job, logs, next, &db.caps));
        next += logs.len() as i64;
    }
    Ok(arrived)
}

/// Finds out why jobs were refused, and sees to the lines of those that are there; those for which the reason has gone by now
/// are returned.
async fn explain(
    db: &Db,
    jobs: &[Arrival],
    keys: &[Option<String>],
    refused: Vec<usize>,
    answers: &mut [Option<Admitted>],
) -> Done<Vec<usize>> {
    if refused.is_empty() {
        return Ok(refused);
    }
    let ids = record::ids(refused.iter().map(|&i| &jobs[i].job.id));
    let there = record::load(db, ids, &["log"]).await?;
    let wanted: Vec<&str> = refused.iter().filter_map(|&i| keys[i].as_deref()).collect();
    let holders = holders(db, &wanted).await?;
    let (mut again, mut cut_off) = (Vec::new(), Vec::new());
    for i in refused {
        let Arrival { job, logs } = &jobs[i];
        let holder = keys[i].as_deref().and_then(|key| holders.get(key));
        match (there.get(&job.id), holder) {
            (Some(document), _) => {
                cut_off.extend(first_number(document).map(|first| Arrived::new(job, logs, first, &db.caps)));
                answers[i] = Some(Admitted::Existing);
            }
            (None, Some(holder)) => answers[i] = Some(Admitted::Held(*holder)),
            (None, None) => again.push(i),
        }
    }
    logs::insert_arrived(db, cut_off.iter()).await?;
    Ok(again)
}

/// The number of the first line that a job came with, as long as no lease of this store has written to its log.
fn first_number(document: &Document) -> Option<i64> {
    let log = document.get_document("log").ok()?;
    if log.contains_key("claim") { None } else { record::whole(log.get("arrived")) }
}
