//! Gives jobs out under leases: see `Backend::claim`.
//!
//! A claim looks for candidates, notes which they are, and takes those that still wait by one conditional update
//! that carries the claim's id (see `docs/decisions/0004-mongodb-shape.md`).

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use leasehold_core::backend::{Claim, Claimed, SetAside};
use leasehold_core::limits::ENDED_BY_A_CLAIM;
use leasehold_core::{JobId, JobRecord, LeasedJob, QueueName, fail_point};
use mongodb::bson::{Bson, Document, doc};

use crate::candidates::{self, Candidate, Look, Selection};
use crate::error::Done;
use crate::limits::{self, Taken};
use crate::record::{self, OFF_TURN, RUNNING, UNTIL_CLAIMED, WAITING};
use crate::replace::REPLACEMENTS;
use crate::session::{Change, Db, Kept, Session, millis};
use crate::turns::Turn;

/// How often a claim looks for more after others were quicker.
const ROUNDS: usize = 16;
/// How many jobs a claim looks at besides those that it may take, where those that end stand before them.
const ENDING: usize = 200;

pub(crate) async fn claim(db: &Db, request: &Claim) -> Done<Claimed> {
    let turn = db.turns.enter().await;
    let mut taking = Taking::new(db, request, turn);
    let mut look = taking.begin().await?;
    if let Some(jobs) = look.repeats.take() {
        return repeated(db, request, &taking.selection, jobs).await;
    }
    let next_due = look.next_due;
    let outcome = taking.all(look).await;
    if outcome.is_err() {
        db.heads.forget();
    }
    let mut claimed = Claimed { set_aside: outcome?, ..Claimed::default() };
    let stopped = taking.endable() == 0;
    claimed.jobs = in_order(taking.taken);
    if claimed.jobs.len() < request.limit {
        // What stands behind as many as a claim may end is due by now.
        claimed.next_due = if stopped { Some(Duration::ZERO) } else { next_due };
    }
    db.signals.taken(&claimed.jobs);
    Ok(claimed)
}

fn in_order(mut jobs: Vec<LeasedJob>) -> Vec<LeasedJob> {
    jobs.sort_by_key(|leased| (Reverse(leased.job.options.priority), leased.job.due, leased.job.id));
    jobs
}

/// A claim under way.
struct Taking<'a> {
    db: &'a Db,
    request: &'a Claim,
    selection: Selection,
    turn: Turn<'a>,
    taken: Vec<LeasedJob>,
    /// How many ended because they have no room.
    ended: usize,
}

impl<'a> Taking<'a> {
    fn new(db: &'a Db, request: &'a Claim, turn: Turn<'a>) -> Self {
        let queues: Vec<_> = request.queues.iter().collect();
        let selection = Selection::new(request, &queues);
        Self { db, request, selection, turn, taken: Vec::new(), ended: 0 }
    }

    /// How many more jobs were asked for.
    fn room(&self) -> usize {
        self.request.limit - self.taken.len()
    }

    /// How many more jobs it may end.
    fn endable(&self) -> usize {
        ENDED_BY_A_CLAIM - self.ended
    }

    /// How many jobs to look for: the more, the more of them ended so far.
    fn sought(&self) -> usize {
        self.room().max((self.ended * 2).min(ENDING).min(self.endable()))
    }

    /// Looks for the first time, and leaves queues out that turn out to give it nothing.
    async fn begin(&mut self) -> Done<Look> {
        let look = self.look().await?;
        if look.shut.is_empty() {
            return Ok(look);
        }
        let goes_on = |queue: &&QueueName| {
            !look.shut.contains(queue.as_str())
                && !queue.roots().any(|root| look.paused.contains(root.as_str()))
        };
        let going: Vec<_> = self.request.queues.iter().filter(goes_on).collect();
        self.selection = Selection::new(self.request, &going);
        if look.repeats.is_some() { Ok(look) } else { self.look().await }
    }

    /// Looks further down than others if there is much to take.
    async fn look(&self) -> Done<Look> {
        let sought = self.sought();
        let deep = self.db.heads.is_deep(&self.selection.name);
        let skip =
            if deep { self.room() * (self.turn.place + fastrand::usize(..=self.db.crowd.get())) } else { 0 };
        let look = candidates::look(self.db, self.request, &self.selection, sought, skip).await?;
        if look.candidates.len() < sought && skip > 0 {
            return candidates::look(self.db, self.request, &self.selection, sought, 0).await;
        }
        Ok(look)
    }

    /// Takes until the claim is full or nothing waits. Tells which records could not be read.
    async fn all(&mut self, mut look: Look) -> Done<Vec<SetAside>> {
        let (mut set_aside, mut rounds) = (Vec::new(), 0);
        while rounds < ROUNDS {
            let sought = self.sought();
            let (bad, found) = (look.bad.len(), look.candidates.len());
            record::set_aside(self.db, &look.bad).await?;
            set_aside.extend(look.bad.drain(..).map(|(_, why)| why));
            if found == 0 && bad == 0 {
                break;
            }
            let (full, ended) = (self.selection.full.len(), self.ended);
            let taken = self.take(look.candidates).await?;
            if self.ended == ended {
                rounds += 1;
                if self.selection.full.len() == full {
                    self.db.crowd.learn(found, taken);
                }
            }
            self.db.heads.taken(&self.selection.name, taken, found + bad >= sought);
            if self.room() == 0 || self.endable() == 0 || found + bad < sought && taken == found {
                break;
            }
            look = self.look().await?;
        }
        Ok(set_aside)
    }

    async fn take(&mut self, mut candidates: Vec<Candidate>) -> Done<usize> {
        if candidates.is_empty() {
            return Ok(0);
        }
        // More than there is room for only if all of them would rather end than wait.
        let ending = candidates.iter().take_while(|candidate| candidate.ends).count();
        candidates.truncate(self.room().max(ending));
        let noted: Vec<JobId> = candidates.iter().map(|candidate| candidate.job.id).collect();
        fail_point!("claim::looked");
        note(self.db, self.request, &candidates).await?;
        fail_point!("claim::noted");
        let Taken { leased, mut full, mut over } =
            take(self.db, self.request, candidates, self.room()).await?;
        over.truncate(self.endable());
        self.ended += limits::end(self.db, self.request, &over).await?;
        unnote(self.db, self.request, noted, &leased).await?;
        full.retain(|key| !self.selection.full.contains(key));
        if !full.is_empty() && self.selection.full.is_empty() {
            // All at once, so that no number of full keys stands before a job that may be taken.
            full.extend(limits::full(self.db).await?);
        }
        self.selection.full.extend(full);
        let count = leased.len();
        self.taken.extend(leased);
        Ok(count)
    }
}

/// Takes up to so many of those that still wait, as far as their limit keys allow it. Of those that have none, there are
/// no more.
async fn take(db: &Db, request: &Claim, candidates: Vec<Candidate>, room: usize) -> Done<Taken> {
    let (free, limited): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|job| job.limit.is_none());
    let mut leased = lease(&mut db.plain(), request, free).await?;
    if limited.is_empty() {
        return Ok(Taken { leased, ..Taken::default() });
    }
    let mut taken = limits::take(db, request, limited, room).await?;
    leased.append(&mut taken.leased);
    Ok(Taken { leased, ..taken })
}

/// Notes which jobs this claim is about to take, so that it finds them when it is repeated (clause E2). The server
/// forgets it in time.
///
/// One node is enough: what the taking writes next is acknowledged by a majority only with all that was written
/// before it.
async fn note(db: &Db, request: &Claim, candidates: &[Candidate]) -> Done<()> {
    let jobs: Vec<_> = candidates.iter().map(|candidate| candidate.id.clone()).collect();
    let claim = doc! {"_id": record::uuid(request.id.as_uuid())};
    let noted = doc! {"$push": {"jobs": {"$each": jobs}}, "$currentDate": {"at": true}};
    let claims = db.quickly(Kept::Claims);
    claims.update_one(claim, noted).upsert(true).await?;
    Ok(())
}

/// Takes out of the note what others took first or a limit key kept back: were it given back one day, the claim would
/// take it when it is repeated.
async fn unnote(db: &Db, request: &Claim, noted: Vec<JobId>, taken: &[LeasedJob]) -> Done<()> {
    if taken.len() == noted.len() {
        return Ok(());
    }
    let taken: HashSet<JobId> = taken.iter().map(|leased| leased.job.id).collect();
    let missed: Vec<JobId> = noted.into_iter().filter(|job| !taken.contains(job)).collect();
    let claim = doc! {"_id": record::uuid(request.id.as_uuid())};
    let claims = db.quickly(Kept::Claims);
    claims.update_one(claim, doc! {"$pullAll": {"jobs": record::ids(&missed)}}).await?;
    Ok(())
}

/// Takes jobs that are about to be removed out of the notes of the claims that they were settled under: whoever enqueues
/// them again enqueues other jobs.
pub(crate) async fn forget(db: &Db, jobs: impl Iterator<Item = &Document>) -> Done<()> {
    let (mut ids, mut claims) = (Vec::new(), Vec::new());
    for job in jobs {
        let settlements = job.get_array("settlements").map(Vec::as_slice).unwrap_or_default();
        claims.extend(
            settlements.iter().filter_map(|settlement| settlement.as_document()?.get("claim").cloned()),
        );
        ids.extend(job.get("_id").cloned());
    }
    if !claims.is_empty() {
        let noted = db.quickly(Kept::Claims);
        noted.update_many(doc! {"_id": {"$in": claims}}, doc! {"$pullAll": {"jobs": ids}}).await?;
    }
    Ok(())
}

/// Leases those that still wait, as they were seen, to the claim.
pub(crate) async fn lease(
    session: &mut Session<'_>,
    request: &Claim,
    candidates: Vec<Candidate>,
) -> Done<Vec<LeasedJob>> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let changes =
        alike(&candidates).into_iter().map(|(like, ids)| taking(session.db, request, like, ids)).collect();
    let matched = session.update(Kept::Jobs, changes).await?.whole()?;
    let leased = |candidate: Candidate| leased(request, candidate.job, candidate.lease);
    if matched == candidates.len() as u64 {
        return Ok(candidates.into_iter().map(leased).collect());
    }
    let ids: Vec<_> = candidates.iter().map(|candidate| candidate.id.clone()).collect();
    let held = vec![doc! {"$match": record::held(ids, request.id.as_uuid())}, doc! {"$project": {"_id": 1}}];
    let held = session.read_now(Kept::Jobs, held).await?;
    let held: HashSet<JobId> = held.iter().filter_map(record::id).collect();
    Ok(candidates.into_iter().filter(|candidate| held.contains(&candidate.job.id)).map(leased).collect())
}

fn leased(request: &Claim, job: JobRecord, lease: Duration) -> LeasedJob {
    let token = request.id.token(job.id);
    LeasedJob::new(job, token, lease)
}

/// Candidates that one statement can write, with the ids of all that are like them.
pub(crate) fn alike(candidates: &[Candidate]) -> Vec<(&Candidate, Vec<Bson>)> {
    let mut alike: Vec<(&Candidate, Vec<Bson>)> = Vec::new();
    for candidate in candidates {
        match alike.iter_mut().find(|(other, _)| other.is_written_like(candidate)) {
            Some((_, ids)) => ids.push(candidate.id.clone()),
            None => alike.push((candidate, vec![candidate.id.clone()])),
        }
    }
    alike
}

/// The condition for jobs which are alike: they still wait as they were seen, due and where the claim looks.
pub(crate) fn as_seen(db: &Db, request: &Claim, like: &Candidate, ids: Vec<Bson>) -> Document {
    // It may have been moved meanwhile.
    let queues: Vec<_> = request.queues.iter().map(QueueName::as_str).collect();
    let mut filter = doc! {
        "_id": {"$in": ids}, "state": WAITING, "queue": {"$in": queues},
        "attempt": like.job.attempt - 1, "generation": like.job.generation,
        "$expr": {"$lte": ["$due", db.now()]},
    };
    if let Some(replacements) = &like.replacements {
        filter.insert(REPLACEMENTS, doc! {"$eq": replacements});
    }
    filter
}

/// The statement that takes jobs which are alike.
fn taking(db: &Db, request: &Claim, like: &Candidate, ids: Vec<Bson>) -> Change {
    let mut fields = doc! {
        "state": RUNNING,
        "attempt": like.job.attempt,
        "started_at": db.now(),
        "claim": record::uuid(request.id.as_uuid()),
        "worker": record::uuid(request.worker.as_uuid()),
        "lease_until": {"$add": [db.now(), millis(like.lease)]},
    };
    if like.is_used {
        let freed = doc! {"$eq": ["$unique_scope", UNTIL_CLAIMED]};
        fields.insert("unique_key", doc! {"$cond": [freed, "$$REMOVE", "$unique_key"]});
        fields.insert("reason", "$$REMOVE");
        fields.insert(OFF_TURN, "$$REMOVE");
    }
    Change::many(as_seen(db, request, like, ids), vec![doc! {"$set": fields}])
}

/// What a repeated claim gets: what it holds, and what it was about to take and nobody else did, as far as it is still
/// selected: it may have been moved, or its queue paused.
async fn repeated(db: &Db, request: &Claim, selection: &Selection, jobs: Vec<Bson>) -> Done<Claimed> {
    let claim = request.id.as_uuid();
    let held = record::held(jobs.clone(), claim);
    // What it has had and given back or settled is not its own any more.
    let mut noted = doc! {"_id": {"$in": jobs}, "settlements.claim": {"$ne": record::uuid(claim)}};
    noted.extend(selection.due(db));
    let (mut claimed, mut bad) = (Claimed::default(), Vec::new());
    let found = db.plain().read(Kept::Jobs, vec![doc! {"$match": {"$or": [held, noted]}}]).await?;
    let now = db.stamp().await?.no_later;
    let mut candidates = Vec::new();
    let mut leases = Vec::new();
    for document in found {
        let running = document.get_str("state").is_ok_and(|state| state == RUNNING);
        let read = if running {
            record::read_at(&document, now).map(|job| {
                let lease = job.options.lease.unwrap_or(request.lease);
                leases.push(leased(request, job, lease));
            })
        } else {
            Candidate::read(&document, request, now).map(|candidate| candidates.push(candidate))
        };
        if let Err(why) = read {
            bad.extend(document.get("_id").map(|id| (id.clone(), why)));
        }
    }
    let room = request.limit.saturating_sub(leases.len());
    candidates.truncate(room);
    leases.extend(take(db, request, candidates, room).await?.leased);
    record::set_aside(db, &bad).await?;
    claimed.set_aside = bad.into_iter().map(|(_, why)| why).collect();
    claimed.jobs = in_order(leases);
    give_back(db, request, &mut claimed.jobs).await?;
    Ok(claimed)
}

/// Gives back what exceeds the claim's limit: a call that was dropped and then repeated may have taken twice.
async fn give_back(db: &Db, request: &Claim, jobs: &mut Vec<LeasedJob>) -> Done<()> {
    if jobs.len() <= request.limit {
        return Ok(());
    }
    let surplus: Vec<_> = jobs.drain(request.limit..).map(|leased| leased.job.id).collect();
    let filter = record::held(record::ids(&surplus), request.id.as_uuid());
    let back = vec![
        doc! {"$set": {"state": WAITING, OFF_TURN: true, "attempt": {"$subtract": ["$attempt", 1]}}},
        doc! {"$unset": ["claim", "lease_until"]},
    ];
    db.plain().update(Kept::Jobs, vec![Change::many(filter, back)]).await?.whole().map(drop)
}
