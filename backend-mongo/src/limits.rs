//! Takes jobs with limit keys (clause C9).
//!
//! Whoever claims jobs of a key writes to the key's document first, so that two never count at the same time; then it
//! counts the running jobs of the key and takes what fits, all in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use leasehold_core::backend::Claim;
use leasehold_core::{JobId, LeasedJob, Reason};
use mongodb::bson::{Document, doc};

use crate::candidates::Candidate;
use crate::claim::{alike, as_seen, lease};
use crate::error::{DUPLICATE, Done};
use crate::record::{self, RUNNING};
use crate::session::{Change, Db, Kept, Session};
use crate::transition::{Next, stages};

/// What became of some candidates.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) leased: Vec<LeasedJob>,
    /// Which keys are full.
    pub(crate) full: Vec<Document>,
    /// Those without room that would rather end than wait.
    pub(crate) over: Vec<Candidate>,
}

impl Taken {
    fn join(&mut self, more: Self) {
        self.leased.extend(more.leased);
        self.full.extend(more.full);
        self.over.extend(more.over);
    }
}

/// How often jobs are tried to be taken while others write to the same keys: half a second, and less when the keys are
/// tried apart.
const TRIES: u32 = 8;
const TRIES_APART: u32 = 3;

/// Takes what fits, up to so many; those behind the last of so many are not judged. A claimer that dies within its transaction leaves its keys locked until the server gives the
/// transaction up: such keys are told as full, and hold up no others.
pub(crate) async fn take(db: &Db, request: &Claim, candidates: Vec<Candidate>, room: usize) -> Done<Taken> {
    let mut taken = Taken::default();
    let (mut parts, mut tries) = (vec![candidates], TRIES);
    while let Some(mut part) = parts.pop() {
        let keys = keys(&part);
        match try_to_take(db, request, (&part, room), &keys, tries).await? {
            Some(more) => taken.join(more),
            None if keys.len() < 2 => taken.full.push(doc! {"limit_key": {"$in": keys}}),
            None => {
                // All that are left may be taken, in whatever order.
                part.truncate(room);
                let middle = &keys[keys.len() / 2];
                let is_below = |job: &Candidate| job.limit.as_ref().is_some_and(|(key, _)| key < middle);
                let (below, rest) = part.into_iter().partition(is_below);
                parts.extend([rest, below]);
                tries = TRIES_APART;
            }
        }
    }
    Ok(taken)
}

fn keys(candidates: &[Candidate]) -> Vec<String> {
    let keys = candidates.iter().filter_map(|job| Some(job.limit.as_ref()?.0.clone()));
    keys.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Takes what fits, all in one transaction; none if others keep writing to the keys.
async fn try_to_take(
    db: &Db,
    request: &Claim,
    candidates: (&[Candidate], usize),
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

/// Takes what fits, up to so many; nothing if a key has no document yet.
async fn within(
    session: &mut Session<'_>,
    request: &Claim,
    (candidates, room): (&[Candidate], usize),
    keys: &[String],
) -> Done<Option<Taken>> {
    let touch = Change::many(doc! {"_id": {"$in": keys}}, doc! {"$inc": {"claims": 1_i64}});
    if session.update(Kept::Limits, vec![touch]).await?.whole()? < keys.len() as u64 {
        return Ok(None);
    }
    let mut running = Running::read(session, keys).await?;
    let mut planned = running.clone();
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for job in candidates {
        if chosen.len() == room {
            break;
        }
        if planned.has_room(job) {
            planned.add(job);
            chosen.push(job.clone());
        } else {
            rest.push(job);
        }
    }
    let leased = lease(session, request, chosen).await?;
    // Only what was really given runs: what was chosen may have been changed since it was looked at.
    let given: HashSet<JobId> = leased.iter().map(|leased| leased.job.id).collect();
    candidates.iter().filter(|job| given.contains(&job.job.id)).for_each(|job| running.add(job));
    let over = rest.into_iter().filter(|job| job.ends && !running.has_room(job)).cloned().collect();
    Ok(Some(Taken { leased, full: running.full(), over }))
}

/// How many jobs run, by limit key.
#[derive(Clone)]
struct Running(HashMap<String, i64>);

impl Running {
    async fn read(session: &mut Session<'_>, keys: &[String]) -> Done<Self> {
        let pipeline = vec![
            doc! {"$match": {"state": RUNNING, "limit_key": {"$type": "string", "$in": keys}}},
            doc! {"$group": {"_id": "$limit_key", "n": {"$sum": 1}}},
        ];
        let counted = session.read(Kept::Jobs, pipeline).await?;
        let of = |counted: &Document| {
            Some((counted.get_str("_id").ok()?.to_owned(), record::whole(counted.get("n")).unwrap_or(0)))
        };
        Ok(Self(counted.iter().filter_map(of).collect()))
    }

    fn has_room(&self, job: &Candidate) -> bool {
        job.limit.as_ref().is_none_or(|(key, max)| self.0.get(key).is_none_or(|running| running < max))
    }

    fn add(&mut self, job: &Candidate) {
        if let Some((key, _)) = &job.limit {
            *self.0.entry(key.clone()).or_default() += 1;
        }
    }

    fn full(self) -> Vec<Document> {
        self.0.into_iter().map(|(key, n)| doc! {"limit_key": key, "limit_max": {"$lte": n}}).collect()
    }
}

/// Ends those of these jobs that still wait as they were seen, due and in their queues. Tells how many.
pub(crate) async fn end(db: &Db, request: &Claim, over: &[Candidate]) -> Done<usize> {
    if over.is_empty() {
        return Ok(0);
    }
    let end = |(like, ids): (&Candidate, _)| {
        let ended = stages(db, Next::ends("cancelled", Reason::LimitReached), Document::new());
        Change::many(as_seen(db, request, like, ids), ended)
    };
    let changes = alike(over).into_iter().map(end).collect();
    let ended = db.plain().update(Kept::Jobs, changes).await?.whole()?;
    db.signals.look_at(over.iter().map(|candidate| candidate.job.id).collect(), Vec::new());
    Ok(usize::try_from(ended).unwrap_or(usize::MAX))
}
