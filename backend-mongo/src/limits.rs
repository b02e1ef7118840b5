//! Takes jobs with limit keys (clause C9).
//!
//! Whoever claims jobs of a key writes to the key's document first, so that two never count at the same time; then it
//! counts the running jobs of the key and takes what fits, all in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use leasehold_core::backend::Claim;
use leasehold_core::{LeasedJob, Reason};
use mongodb::bson::{Document, doc};

use crate::candidates::Candidate;
use crate::claim::lease;
use crate::error::{DUPLICATE, Done};
use crate::record::{self, RUNNING, WAITING};
use crate::session::{Change, Db, Kept, Session};
use crate::transition::{Next, stages};

/// What was taken, and which keys are full.
type Taken = (Vec<LeasedJob>, Vec<Document>);

/// How often jobs are tried to be taken while others write to the same keys: half a second, and less when the keys are
/// tried apart.
const TRIES: u32 = 8;
const TRIES_APART: u32 = 3;

/// Takes what fits. A claimer that dies within its transaction leaves its keys locked until the server gives the
/// transaction up: such keys are told as full, and hold up no others.
pub(crate) async fn take(db: &Db, request: &Claim, candidates: Vec<Candidate>) -> Done<Taken> {
    let (mut taken, mut full) = (Vec::new(), Vec::new());
    let (mut parts, mut tries) = (vec![candidates], TRIES);
    while let Some(part) = parts.pop() {
        let keys = keys(&part);
        match try_to_take(db, request, &part, &keys, tries).await? {
            Some((more, keys)) => {
                taken.extend(more);
                full.extend(keys);
            }
            None if keys.len() < 2 => full.push(doc! {"limit_key": {"$in": keys}}),
            None => {
                let middle = &keys[keys.len() / 2];
                let is_below = |job: &Candidate| job.limit.as_ref().is_some_and(|(key, _)| key < middle);
                let (below, rest) = part.into_iter().partition(is_below);
                parts.extend([rest, below]);
                tries = TRIES_APART;
            }
        }
    }
    Ok((taken, full))
}

fn keys(candidates: &[Candidate]) -> Vec<String> {
    let keys = candidates.iter().filter_map(|job| Some(job.limit.as_ref()?.0.clone()));
    keys.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Takes what fits, all in one transaction; none if others keep writing to the keys.
async fn try_to_take(
    db: &Db,
    request: &Claim,
    candidates: &[Candidate],
    keys: &[String],
    tries: u32,
) -> Done<Option<Taken>> {
    let mut session = db.atomic().await?.trying(tries);
    loop {
        let outcome = within(&mut session, request, candidates, keys).await;
        match session.end(outcome).await {
            Ok(Some(Some(taken))) => return Ok(Some(taken)),
            Ok(Some(None)) => {
                make(db, keys).await?;
                session.again().await?;
            }
            Ok(None) => {}
            Err(fault) if fault.may_begin_again() => return Ok(None),
            Err(fault) => return Err(fault),
        }
    }
}

/// How many keys are looked at to find those that are full.
const KEYS: i64 = 20_000;

/// Which keys have running jobs by now, each for jobs that allow no more than so many.
pub(crate) async fn full(db: &Db) -> Done<Vec<Document>> {
    let pipeline = vec![
        doc! {"$match": {"state": RUNNING, "limit_key": {"$type": "string"}}},
        doc! {"$group": {"_id": "$limit_key", "n": {"$sum": 1}}},
        doc! {"$limit": KEYS},
    ];
    let mut full: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for counted in db.plain().read_now(Kept::Jobs, pipeline).await? {
        let n = record::whole(counted.get("n")).unwrap_or(0);
        full.entry(n).or_default().extend(counted.get_str("_id").ok().map(str::to_owned));
    }
    let full = full.into_iter();
    Ok(full.map(|(n, keys)| doc! {"limit_key": {"$in": keys}, "limit_max": {"$lte": n}}).collect())
}

/// Makes the documents of keys that have none yet.
async fn make(db: &Db, keys: &[String]) -> Done<()> {
    let new = keys.iter().map(|key| doc! {"_id": key, "claims": 0_i64}).collect();
    db.plain().insert(Kept::Limits, new).await?.unless(DUPLICATE).map(drop)
}

/// Takes what fits; nothing if a key has no document yet.
async fn within(
    session: &mut Session<'_>,
    request: &Claim,
    candidates: &[Candidate],
    keys: &[String],
) -> Done<Option<Taken>> {
    let touch = Change::many(doc! {"_id": {"$in": keys}}, doc! {"$inc": {"claims": 1_i64}});
    if session.update(Kept::Limits, vec![touch]).await?.whole()? < keys.len() as u64 {
        return Ok(None);
    }
    let pipeline = vec![
        doc! {"$match": {"state": RUNNING, "limit_key": {"$type": "string", "$in": keys}}},
        doc! {"$group": {"_id": "$limit_key", "n": {"$sum": 1}}},
    ];
    let mut running: HashMap<String, i64> = HashMap::new();
    for counted in session.read(Kept::Jobs, pipeline).await? {
        let n = record::whole(counted.get("n")).unwrap_or(0);
        running.extend(counted.get_str("_id").ok().map(|key| (key.to_owned(), n)));
    }
    let mut chosen = Vec::new();
    for job in candidates {
        let Some((key, max)) = &job.limit else { continue };
        let running = running.entry(key.clone()).or_default();
        if *running < *max {
            *running += 1;
            chosen.push(job.clone());
        }
    }
    let full = |(key, n): (String, i64)| doc! {"limit_key": key, "limit_max": {"$lte": n}};
    let full = running.into_iter().map(full).collect();
    Ok(Some((lease(session, request, chosen).await?, full)))
}

/// Ends those of these jobs whose keys are full and that still wait as they were seen: they would rather end than wait.
pub(crate) async fn end_without_room(db: &Db, candidates: Vec<Candidate>, full: &[Document]) -> Done<()> {
    let is_full = |candidate: &Candidate| {
        let Some((key, max)) = &candidate.limit else { return false };
        full.iter().any(|full| {
            let runs = full.get_document("limit_max").ok().and_then(|n| record::whole(n.get("$lte")));
            full.get_str("limit_key").is_ok_and(|of| of == key) && runs.is_some_and(|runs| runs >= *max)
        })
    };
    let ending: Vec<Candidate> = candidates.into_iter().filter(is_full).collect();
    if ending.is_empty() {
        return Ok(());
    }
    let end = |candidate: &Candidate| {
        let job = &candidate.job;
        let filter = doc! {
            "_id": candidate.id.clone(), "state": WAITING, "attempt": job.attempt - 1, "generation": job.generation,
        };
        Change::many(filter, stages(db, Next::ends("cancelled", Reason::LimitReached), Document::new()))
    };
    db.plain().update(Kept::Jobs, ending.iter().map(end).collect()).await?.whole()?;
    db.signals.look_at(ending.iter().map(|candidate| candidate.job.id).collect(), Vec::new());
    Ok(())
}
