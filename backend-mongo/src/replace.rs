//! Gives the holder of a unique key what a newcomer brings (clause P4): see `Backend::enqueue`.
//!
//! The holder is changed by one conditional update, which remembers the newcomer in the same document: whoever repeats it
//! is told by that. How often it was replaced is what a claim compares, so it gives out no payload that is not there any
//! more.

use std::collections::HashMap;

use leasehold_core::backend::EnqueueAnswer;
use leasehold_core::{JobId, NewJob, OnConflict, Reason, limits};
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};

use crate::control::by;
use crate::error::Done;
use crate::record::{self, OFF_TURN, WAITING, as_uuid};
use crate::session::{Change, Db, Kept, millis};

/// The newcomers that replaced a job, the latest ones, the latest last.
pub(crate) const REPLACED: &str = "replaced";
/// How often it was replaced.
pub(crate) const REPLACEMENTS: &str = "replacements";

/// Which of these newcomers replaced a job before, and which one.
pub(crate) async fn replaced(db: &Db, jobs: impl Iterator<Item = &NewJob>) -> Done<HashMap<JobId, JobId>> {
    let newcomers: Vec<Bson> = record::ids(jobs.filter(|job| !is_plain(job)).map(|job| &job.id));
    if newcomers.is_empty() {
        return Ok(HashMap::new());
    }
    let of = vec![doc! {"$match": of(newcomers)}, doc! {"$project": {REPLACED: 1}}];
    let found = db.plain().read(Kept::Jobs, of).await?;
    Ok(found.iter().flat_map(newcomers_of).collect())
}

/// Whether a job can be taken in, or kept out, without a look at the holder of its key.
pub(crate) fn is_plain(job: &NewJob) -> bool {
    job.on_conflict().is_keep()
}

/// The jobs that these newcomers replaced.
fn of(newcomers: Vec<Bson>) -> Document {
    doc! {REPLACED: {"$exists": true, "$in": newcomers}}
}

fn newcomers_of(job: &Document) -> Vec<(JobId, JobId)> {
    let Some(id) = record::id(job) else { return Vec::new() };
    let newcomers = job.get_array(REPLACED).map(Vec::as_slice).unwrap_or_default();
    newcomers.iter().filter_map(|newcomer| Some((JobId::from_uuid(as_uuid(newcomer)?), id))).collect()
}

/// Replaces the holder of a key, or leaves it alone; none if it let go of the key meanwhile, or this very newcomer came by.
pub(crate) async fn replace(db: &Db, holder: JobId, new: &NewJob) -> Done<Option<EnqueueAnswer>> {
    let Some((held, filter)) = filters(holder, new) else { return Ok(Some(EnqueueAnswer::Held)) };
    let mut change = Change::one(filter, stages(db, new));
    change.bytes = new.payload.len();
    if db.plain().update(Kept::Jobs, vec![change]).await?.whole()? > 0 {
        return Ok(Some(EnqueueAnswer::Replaced));
    }
    let left = vec![doc! {"$match": held}, doc! {"$project": {"_id": 1}}];
    let left = !db.plain().read_now(Kept::Jobs, left).await?.is_empty();
    Ok(left.then_some(EnqueueAnswer::Held))
}

/// The same inside the caller's own transaction: what became of a newcomer, or none if it may come in.
pub(crate) async fn replace_in(
    db: &Db,
    session: &mut ClientSession,
    new: &NewJob,
) -> Done<Option<(JobId, EnqueueAnswer)>> {
    let Some(unique) = &new.options.unique else { return Ok(None) };
    let (id, jobs) = (record::uuid(new.id.as_uuid()), db.of(Kept::Jobs));
    let by_key = doc! {"unique_key": {"$type": "string", "$eq": unique.key.as_str()}};
    let filter = doc! {"$or": [{"_id": &id}, of(vec![id.clone()]), by_key]};
    let fields = doc! {"unique_key": 1, REPLACED: 1};
    let mut found = jobs.find(filter).projection(fields).session(&mut *session).await?;
    let mut holder = None;
    while let Some(document) = found.next(&mut *session).await.transpose()? {
        if document.get("_id") == Some(&id) {
            return Ok(Some((new.id, EnqueueAnswer::Existing)));
        }
        if let Some((_, job)) = newcomers_of(&document).into_iter().find(|(newcomer, _)| *newcomer == new.id)
        {
            return Ok(Some((job, EnqueueAnswer::Replaced)));
        }
        holder = record::id(&document);
    }
    let Some(holder) = holder else { return Ok(None) };
    let Some((_, filter)) = filters(holder, new) else { return Ok(Some((holder, EnqueueAnswer::Held))) };
    let replaced = jobs.update_one(filter, stages(db, new)).session(session).await?.matched_count > 0;
    Ok(Some((holder, if replaced { EnqueueAnswer::Replaced } else { EnqueueAnswer::Held })))
}

/// The conditions for a holder that keeps the newcomer out, and for one that may be replaced.
fn filters(holder: JobId, new: &NewJob) -> Option<(Document, Document)> {
    let key = new.options.unique.as_ref()?.key.as_str();
    let holds = doc! {"_id": record::uuid(holder.as_uuid()), "unique_key": {"$type": "string", "$eq": key}};
    let (mut held, mut waits) = (holds.clone(), holds);
    // Whatever became of the holder since: a newcomer that came by before was not kept out (clause E2).
    let came_by = doc! {"$ne": record::uuid(new.id.as_uuid())};
    let keeps_out = vec![doc! {"state": {"$ne": WAITING}}, doc! {"kind": {"$ne": new.kind.as_str()}}];
    held.extend(doc! {"$or": keeps_out, REPLACED: came_by.clone()});
    waits.extend(doc! {"state": WAITING, "kind": new.kind.as_str(), REPLACED: came_by});
    Some((held, waits))
}

fn stages(db: &Db, new: &NewJob) -> Vec<Document> {
    let mut due = by(db, new.due);
    if let OnConflict::Debounce { at_most } = new.on_conflict() {
        due = doc! {"$min": [due, {"$add": ["$enqueued_at", millis(at_most)]}]}.into();
    }
    let known = doc! {"$cond": [{"$isArray": format!("${REPLACED}")}, format!("${REPLACED}"), []]};
    let newcomers = doc! {"$concatArrays": [known, [record::uuid(new.id.as_uuid())]]};
    let most = i32::try_from(limits::REPLACEMENTS).unwrap_or(i32::MAX);
    vec![doc! {"$set": {
        "payload": record::bytes(&new.payload),
        "priority": i32::from(new.options.priority),
        "due": due,
        "reason": Reason::Replaced.to_string(),
        "progress": "$$REMOVE",
        OFF_TURN: true,
        REPLACED: {"$slice": [newcomers, -most]},
        REPLACEMENTS: {"$add": [crate::transition::count(&format!("${REPLACEMENTS}")), 1]},
    }}]
}
