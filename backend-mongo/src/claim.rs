//! Gives jobs out under leases: see `Backend::claim`.
//!
//! A claim finds candidates, takes those that still wait by one conditional update that carries the claim's id, and
//! reads what it got by that id. Claimers that get in each other's way look further down the queue (see
//! `docs/decisions/0004-mongodb-shape.md`). Jobs with a limit key are taken in a transaction that counts those that
//! run (clause C9).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::backend::{Claim, Claimed, KindRule, SetAside, TagRule};
use leasehold_core::{LeasedJob, QueueName};
use mongodb::bson::{Bson, Document, doc};

use crate::error::{DUPLICATE, Done};
use crate::record::{self, Fields, RUNNING, UNTIL_CLAIMED, WAITING, with_now};
use crate::session::{Change, Db, Kept, Session, millis};

/// How often a claim looks for more after others were quicker.
const ROUNDS: usize = 16;
/// How many whole batches further down a claimer looks at most.
const CROWD: usize = 16;

pub(crate) async fn claim(db: &Db, request: &Claim) -> Done<Claimed> {
    let mut queues: Vec<_> = request.queues.iter().collect();
    let mut taking = Taking { db, request, wanted: wanted(request, &queues), full: Vec::new(), taken: 0 };
    // In this order: what an earlier call of this claim took meanwhile is no candidate any more, and is found.
    let mut first = taking.candidates(request.limit, taking.skip(request.limit)).await?;
    let standing = standing(db, request).await?;
    if standing.repeated {
        return granted(db, request).await;
    }
    if !standing.paused.is_empty() {
        queues.retain(|queue| !standing.paused.contains(queue.as_str()));
        taking.wanted = wanted(request, &queues);
        first = taking.candidates(request.limit, 0).await?;
    }
    let mut claimed = Claimed::default();
    if taking.all(first).await? {
        claimed = granted(db, request).await?;
        if !claimed.jobs.is_empty() {
            remember(db, request).await?;
        }
        give_back(db, request, &mut claimed.jobs).await?;
        db.signals.look_at(claimed.jobs.iter().map(|leased| leased.job.id).collect());
    }
    if claimed.jobs.len() < request.limit {
        claimed.next_due = next_due(db, &queues).await?;
    }
    Ok(claimed)
}

/// What is known of a claim and its queues before it takes anything.
struct Standing {
    /// Whether this very claim was given jobs before (clause E2).
    repeated: bool,
    paused: BTreeSet<String>,
}

async fn standing(db: &Db, request: &Claim) -> Done<Standing> {
    let claim = record::uuid(request.id.as_uuid());
    let queues: Vec<_> = request.queues.iter().map(QueueName::as_str).collect();
    let holds = doc! {"claim": claim.clone(), "state": RUNNING};
    let pipeline = vec![
        doc! {"$match": {"_id": claim}},
        doc! {"$project": {"repeated": "yes"}},
        doc! {"$unionWith": {"coll": db.name(Kept::Jobs), "pipeline": [
            {"$match": holds}, {"$limit": 1}, {"$project": {"repeated": "yes"}},
        ]}},
        doc! {"$unionWith": {"coll": db.name(Kept::Queues), "pipeline": [
            {"$match": {"_id": {"$in": queues}, "paused": true}}, {"$project": {"_id": 1}},
        ]}},
    ];
    let mut standing = Standing { repeated: false, paused: BTreeSet::new() };
    for found in db.plain().read(Kept::Claims, pipeline).await? {
        standing.repeated |= found.contains_key("repeated");
        standing.paused.extend(found.get_str("_id").ok().map(str::to_owned));
    }
    Ok(standing)
}

/// Remembers that this claim was given jobs, for as long as it may be repeated. The server forgets it in time.
async fn remember(db: &Db, request: &Claim) -> Done<()> {
    let claim = doc! {"_id": record::uuid(request.id.as_uuid())};
    let mut change = Change::one(claim, vec![doc! {"$set": {"at": "$$NOW"}}]);
    change.upsert = true;
    db.plain().update(Kept::Claims, vec![change]).await?.whole().map(drop)
}

/// What is held under this very claim.
async fn granted(db: &Db, request: &Claim) -> Done<Claimed> {
    let claim = record::uuid(request.id.as_uuid());
    let pipeline = vec![doc! {"$match": {"claim": claim, "state": RUNNING}}, with_now(db)];
    let (mut claimed, mut bad) = (Claimed::default(), Vec::new());
    for document in db.plain().read(Kept::Jobs, pipeline).await? {
        match record::read(&document) {
            Ok(job) => {
                let (token, lease) = (request.id.token(job.id), job.options.lease.unwrap_or(request.lease));
                claimed.jobs.push(LeasedJob::new(job, token, lease));
            }
            Err(why) => bad.extend(document.get("_id").map(|id| (id.clone(), why))),
        }
    }
    record::set_aside(db, &bad).await?;
    claimed.set_aside = bad.into_iter().map(|(_, why)| why).collect();
    claimed.jobs.sort_by_key(|leased| (Reverse(leased.job.options.priority), leased.job.due, leased.job.id));
    Ok(claimed)
}

/// What a job must be to be claimed.
fn wanted(request: &Claim, queues: &[&QueueName]) -> Document {
    let queues: Vec<_> = queues.iter().map(|queue| queue.as_str()).collect();
    let queue = if let [queue] = queues[..] { Bson::from(queue) } else { doc! {"$in": queues}.into() };
    let mut wanted = doc! {"state": WAITING, "queue": queue};
    let kinds = |kinds: &BTreeSet<leasehold_core::Kind>| kinds.iter().map(|k| k.as_str().into()).collect();
    match &request.kinds {
        KindRule::Any => {}
        KindRule::Only(only) => drop(wanted.insert("kind", doc! {"$in": Bson::Array(kinds(only))})),
        KindRule::Except(but) => drop(wanted.insert("kind", doc! {"$nin": Bson::Array(kinds(but))})),
    }
    match &request.tags {
        TagRule::Any => {}
        TagRule::JobHasAll(tags) if tags.is_empty() => {}
        TagRule::JobHasAll(tags) => {
            let all: Vec<_> = tags.iter().map(leasehold_core::Tag::as_str).collect();
            wanted.insert("tags", doc! {"$all": all});
        }
        TagRule::WorkerHasAll(tags) => {
            let offered: Vec<_> = tags.iter().map(leasehold_core::Tag::as_str).collect();
            wanted.insert("tags", doc! {"$not": {"$elemMatch": {"$nin": offered}}});
        }
    }
    if let Some(least) = request.min_priority {
        wanted.insert("priority", doc! {"$gte": i32::from(least)});
    }
    wanted
}

/// A job that may be taken.
struct Candidate {
    id: Bson,
    limit: Option<(String, i64)>,
}

/// A claim under way.
struct Taking<'a> {
    db: &'a Db,
    request: &'a Claim,
    wanted: Document,
    /// Limit keys that are full, each for jobs that allow no more than so many.
    full: Vec<Document>,
    taken: usize,
}

impl Taking<'_> {
    /// Takes until the claim is full or nothing waits, and tells whether it tried to take anything.
    async fn all(&mut self, first: Vec<Candidate>) -> Done<bool> {
        let (mut candidates, mut tried) = (first, false);
        for _ in 0..ROUNDS {
            let room = self.request.limit - self.taken;
            if candidates.len() < room && self.crowd() > 0 {
                // It looked too far down.
                candidates = self.candidates(room, 0).await?;
            }
            if candidates.is_empty() {
                break;
            }
            tried = true;
            let (found, full) = (candidates.len(), self.full.len());
            let taken = self.take(candidates).await?;
            self.taken += taken;
            if self.full.len() == full {
                self.learn(found, taken);
            }
            if self.taken >= self.request.limit || found < room && taken == found {
                break;
            }
            let room = self.request.limit - self.taken;
            candidates = self.candidates(room, self.skip(room)).await?;
        }
        Ok(tried)
    }

    fn crowd(&self) -> usize {
        self.db.crowd.load(Ordering::Relaxed)
    }

    /// How far down the queue to look, at random: whole batches, and the more of them the more was missed lately.
    fn skip(&self, room: usize) -> usize {
        room * fastrand::usize(..=self.crowd())
    }

    /// Learns from what it missed how many others claim at the same time.
    fn learn(&self, found: usize, taken: usize) {
        let missed = found.saturating_sub(taken);
        if missed * 4 > found {
            self.db.crowd.store((self.crowd() + 1).min(CROWD), Ordering::Relaxed);
        } else if missed == 0 && self.crowd() > 0 && fastrand::u8(..8) == 0 {
            self.db.crowd.store(self.crowd() - 1, Ordering::Relaxed);
        }
    }

    fn filter(&self) -> Document {
        let mut filter = self.wanted.clone();
        filter.insert("$expr", doc! {"$lte": ["$due", self.db.now()]});
        if !self.full.is_empty() {
            filter.insert("$nor", self.full.clone());
        }
        filter
    }

    async fn candidates(&self, room: usize, skip: usize) -> Done<Vec<Candidate>> {
        if room == 0 {
            return Ok(Vec::new());
        }
        let mut pipeline =
            vec![doc! {"$match": self.filter()}, doc! {"$sort": {"priority": -1, "due": 1, "_id": 1}}];
        if skip > 0 {
            pipeline.push(doc! {"$skip": i64::try_from(skip).unwrap_or(0)});
        }
        pipeline.push(doc! {"$limit": i64::try_from(room).unwrap_or(i64::MAX)});
        pipeline.push(doc! {"$project": {"limit_key": 1, "limit_max": 1}});
        let found = self.db.plain().read(Kept::Jobs, pipeline).await?;
        let candidate = |document: Document| {
            let max = record::whole(document.get("limit_max")).unwrap_or(i64::MAX);
            let limit = document.get_str("limit_key").ok().map(|key| (key.to_owned(), max));
            Some(Candidate { id: document.get("_id")?.clone(), limit })
        };
        Ok(found.into_iter().filter_map(candidate).collect())
    }

    async fn take(&mut self, candidates: Vec<Candidate>) -> Done<usize> {
        let (free, limited): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|job| job.limit.is_none());
        let mut taken = 0;
        if !free.is_empty() {
            let ids: Vec<_> = free.into_iter().map(|job| job.id).collect();
            taken += self.lease(&mut self.db.plain(), ids).await?;
        }
        if !limited.is_empty() {
            taken += self.take_limited(&limited).await?;
        }
        Ok(taken)
    }

    /// Leases those that still wait to the claim.
    async fn lease(&self, session: &mut Session<'_>, ids: Vec<Bson>) -> Done<usize> {
        let written = session.update(Kept::Jobs, vec![self.change(doc! {"$in": ids.clone()})]).await?;
        if written.failed.is_empty() {
            return Ok(usize::try_from(written.matched).unwrap_or(0));
        }
        // A record that the update cannot work on ended it: take them one by one and set that one aside (B3).
        let one_by_one = ids.iter().map(|id| self.change(id.clone())).collect();
        let each = session.update(Kept::Jobs, one_by_one).await?;
        let why = |what: &str| format!("it cannot be claimed: {what}");
        let bad = each.failed.iter().map(|(i, _, what)| {
            let job = record::as_uuid(&ids[*i]).map(leasehold_core::JobId::from_uuid);
            (ids[*i].clone(), SetAside { job, why: why(what) })
        });
        record::set_aside(self.db, &bad.collect::<Vec<_>>()).await?;
        Ok(usize::try_from(written.matched + each.matched).unwrap_or(0))
    }

    fn change(&self, ids: impl Into<Bson>) -> Change {
        let mut filter = self.filter();
        filter.remove("$nor");
        filter.insert("_id", ids);
        let lease = doc! {"$ifNull": ["$lease_ms", millis(self.request.lease)]};
        let freed = doc! {"$eq": ["$unique_scope", UNTIL_CLAIMED]};
        let fields = doc! {
            "state": RUNNING,
            "reason": "$$REMOVE",
            "attempt": {"$add": ["$attempt", 1]},
            "started_at": self.db.now(),
            "claim": record::uuid(self.request.id.as_uuid()),
            "worker": record::uuid(self.request.worker.as_uuid()),
            "lease_until": {"$add": [self.db.now(), lease]},
            "unique_key": {"$cond": [freed, "$$REMOVE", "$unique_key"]},
        };
        Change::many(filter, vec![doc! {"$set": fields}])
    }

    /// Takes jobs with limit keys. Whoever claims jobs of a key writes to the key's document first, so that two
    /// never count at the same time (clause C9).
    async fn take_limited(&mut self, candidates: &[Candidate]) -> Done<usize> {
        let keys: BTreeSet<&str> =
            candidates.iter().filter_map(|job| Some(job.limit.as_ref()?.0.as_str())).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut session = self.db.atomic().await?;
        loop {
            let outcome = self.within_limits(&mut session, candidates, &keys).await;
            let Some(outcome) = session.end(outcome).await? else { continue };
            match outcome {
                Some((taken, full)) => {
                    self.full.extend(full);
                    return Ok(taken);
                }
                None => {
                    let new = keys.iter().map(|key| doc! {"_id": *key, "claims": 0_i64}).collect();
                    let written = self.db.plain().insert(Kept::Limits, new).await?;
                    if let Some((_, code, what)) =
                        written.failed.iter().find(|(_, code, _)| *code != DUPLICATE)
                    {
                        let (kind, message) = crate::error::by_code(*code, what);
                        return Err(leasehold_core::Error::new(kind, message).into());
                    }
                    session.again().await?;
                }
            }
        }
    }

    /// How many were taken and which keys are full; none if a key has no document yet.
    async fn within_limits(
        &self,
        session: &mut Session<'_>,
        candidates: &[Candidate],
        keys: &[&str],
    ) -> Done<Option<(usize, Vec<Document>)>> {
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
                chosen.push(job.id.clone());
            }
        }
        let full = |(key, n): (String, i64)| doc! {"limit_key": key, "limit_max": {"$lte": n}};
        let full = running.into_iter().map(full).collect();
        let taken = if chosen.is_empty() { 0 } else { self.lease(session, chosen).await? };
        Ok(Some((taken, full)))
    }
}

/// Gives back what exceeds the claim's limit: a call that was dropped and then repeated may have taken twice.
async fn give_back(db: &Db, request: &Claim, jobs: &mut Vec<LeasedJob>) -> Done<()> {
    if jobs.len() <= request.limit {
        return Ok(());
    }
    let surplus: Vec<_> = jobs.drain(request.limit..).map(|leased| leased.job.id).collect();
    let filter = doc! {
        "_id": {"$in": record::ids(&surplus)}, "state": RUNNING, "claim": record::uuid(request.id.as_uuid()),
    };
    let back = vec![
        doc! {"$set": {"state": WAITING, "attempt": {"$subtract": ["$attempt", 1]}}},
        doc! {"$unset": ["claim", "lease_until"]},
    ];
    db.plain().update(Kept::Jobs, vec![Change::many(filter, back)]).await?.whole().map(drop)
}

/// When the next job of these queues becomes due: one look per queue into the index.
async fn next_due(db: &Db, queues: &[&QueueName]) -> Done<Option<Duration>> {
    let queues: Vec<_> = queues.iter().map(|queue| queue.as_str()).collect();
    let pipeline = vec![
        doc! {"$match": {"queue": {"$in": queues}, "state": WAITING, "$expr": {"$gt": ["$due", db.now()]}}},
        doc! {"$sort": {"due": 1}},
        doc! {"$limit": 1},
        doc! {"$project": {"due": 1, "now": db.now()}},
    ];
    let found = db.plain().read(Kept::Jobs, pipeline).await?;
    let due = |next: &Document| {
        let fields = Fields(next);
        Some(fields.moment("due").ok()??.since(fields.moment("now").ok()??))
    };
    Ok(found.first().and_then(due))
}
