//! Changes jobs and queues on an operator's behalf, and removes what is over: see `Backend::amend`, `set_queue`,
//! `queues` and `prune`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Cursor, Order, Prune, Pruned, QueueRecord, Select, SetQueue,
};
use leasehold_core::{Due, Error, ErrorKind, JobId, JobOptions, QueueName, Reason, State, Timestamp};
use mongodb::bson::{Bson, DateTime, Document, doc};
use uuid::Uuid;

use crate::enqueue::{free_keys, holders};
use crate::error::{DUPLICATE, Done};
use crate::record::{self, Fields, OFF_TURN, RUNNING, WAITING};
use crate::session::{Change, Db, Kept, Session, date, millis};
use crate::transition::{Next, count, stages};
use crate::{claim, inspect, logs, registers};

/// How often a job is looked at again that others changed between reading and writing.
const TRIES: usize = 20;

/// What an amendment looks at.
const FIELDS: [&str; 15] = [
    "queue",
    "reason",
    "started_at",
    "finished_at",
    "priority",
    "state",
    "due",
    "attempt",
    "generation",
    "claim",
    "cancel_requested",
    "options",
    "amended",
    "unique_key",
    "settlements.claim",
];

pub(crate) async fn amend(db: &Db, request: Amend) -> Done<Amended> {
    let (ids, next) = select(db, request.select).await?;
    let mut answers: Vec<Option<AmendAnswer>> = vec![None; ids.len()];
    for _ in 0..TRIES {
        let left: Vec<usize> = (0..ids.len()).filter(|&i| answers[i].is_none()).collect();
        if left.is_empty() {
            break;
        }
        round(db, &ids, &left, &request.action, request.preview, &mut answers).await?;
    }
    let jobs: Option<Vec<_>> = ids.into_iter().zip(answers).map(|(id, answer)| Some((id, answer?))).collect();
    let why = "others keep changing these jobs; repeat the call";
    let jobs = jobs.ok_or_else(|| Error::new(ErrorKind::Unknown, why))?;
    Ok(Amended { jobs, next })
}

async fn select(db: &Db, select: Select) -> Done<(Vec<JobId>, Option<Cursor>)> {
    match select {
        Select::Ids(ids) => Ok((ids, None)),
        Select::Matching { mut filter, as_of, after, limit } => {
            filter.enqueued_until = Some(filter.enqueued_until.unwrap_or(as_of).min(as_of));
            let (found, next) =
                inspect::matching(db, &filter, Order::OldestFirst, after.as_ref(), limit, false).await?;
            Ok((found.iter().filter_map(record::id).collect(), next))
        }
    }
}

/// Reads jobs, decides, and writes those that are still as they were read; the others are left for another round.
async fn round(
    db: &Db,
    ids: &[JobId],
    left: &[usize],
    action: &Action,
    preview: bool,
    answers: &mut [Option<AmendAnswer>],
) -> Done<()> {
    let jobs = record::load(db, record::ids(left.iter().map(|&i| &ids[i])), &FIELDS).await?;
    let held = keys_held(db, &jobs, action).await?;
    let (mut writes, mut first): (Vec<(usize, &Document)>, HashSet<JobId>) = Default::default();
    for &i in left {
        let Some(job) = jobs.get(&ids[i]) else {
            answers[i] = Some(AmendAnswer::NotFound);
            continue;
        };
        let answer = act(job, action, &held);
        let changes = matches!(answer, AmendAnswer::Applied | AmendAnswer::Requested);
        // A job that stands twice is looked at again once the first was written.
        if changes && !preview && !first.insert(ids[i]) {
            continue;
        }
        if changes && !preview {
            writes.push((i, job));
        } else {
            answers[i] = Some(answer);
        }
    }
    if writes.is_empty() {
        return Ok(());
    }
    let written = write(db, ids, &writes, action).await?;
    for (i, job) in &writes {
        if written.contains(&ids[*i]) {
            answers[*i] = Some(act(job, action, &held));
        }
    }
    tell(db, action, written.into_iter().collect());
    Ok(())
}

fn tell(db: &Db, action: &Action, written: Vec<JobId>) {
    match action {
        Action::Delete | Action::DeleteEnded { .. } => {}
        Action::Cancel | Action::CancelParked => db.signals.look_at(written, Vec::new()),
        _ => db.signals.look_at(Vec::new(), written),
    }
}

/// The keys that jobs would take again if this brought them back, and who holds them now (clause P4).
async fn keys_held(
    db: &Db,
    jobs: &HashMap<JobId, Document>,
    action: &Action,
) -> Done<HashMap<String, JobId>> {
    let keys: Vec<String> = jobs.values().filter_map(|job| key_taken_again(job, action)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    free_keys(db, &keys).await?;
    holders(db, &keys).await
}

fn key_taken_again(job: &Document, action: &Action) -> Option<String> {
    let options: JobOptions = serde_json::from_str(job.get_str("options").ok()?).ok()?;
    let was_claimed = job.contains_key("started_at") || record::whole(job.get("generation")).unwrap_or(0) > 0;
    let unique = options.unique?;
    unique.is_taken_again(action, was_claimed).then(|| unique.key.into())
}

/// The state that a job is in; one that does not exist cannot be changed either, like one that has ended.
fn state(job: &Document) -> State {
    let (due, now) = (job.get_datetime("due"), job.get_datetime("now"));
    match job.get_str("state").unwrap_or_default() {
        WAITING if due.is_ok_and(|due| now.is_ok_and(|now| due > now)) => State::Scheduled,
        WAITING => State::Queued,
        other => other.parse().unwrap_or(State::Failed),
    }
}

/// Whether it waits and is parked (clause P7).
fn is_parked(job: &Document) -> bool {
    state(job).is_waiting() && job.get("due") == Some(&date(Timestamp::MAX))
}

/// Whether it was withdrawn (clause P8).
fn is_withdrawn(job: &Document) -> bool {
    state(job) == State::Cancelled && job.get_str("reason").ok() == Some(Reason::Moved.into())
}

/// Whether it ended at this moment or before.
fn ended_by(job: &Document, moment: Timestamp) -> bool {
    let finished_at = Fields(job).moment("finished_at").ok().flatten();
    state(job).is_terminal() && finished_at.is_some_and(|at| at <= moment)
}

/// What bringing it back does to it.
fn brought_back(job: &Document, action: &Action, held: &HashMap<String, JobId>) -> AmendAnswer {
    let holder = key_taken_again(job, action).and_then(|key| held.get(&key).copied());
    let other = holder.filter(|holder| Some(*holder) != record::id(job));
    other.map_or(AmendAnswer::Applied, AmendAnswer::Held)
}

/// What an action does to a job as it was read.
fn act(job: &Document, action: &Action, held: &HashMap<String, JobId>) -> AmendAnswer {
    let state = state(job);
    let due_is = |due: &Due| {
        let fields = Fields(job);
        let (Ok(Some(now)), Ok(Some(is))) = (fields.moment("now"), fields.moment("due")) else {
            return false;
        };
        due.by(now) == is
    };
    match action {
        Action::Withdraw if is_withdrawn(job) => AmendAnswer::AlreadyApplied,
        Action::Withdraw if state.is_waiting() => AmendAnswer::Applied,
        Action::Restore if state.is_waiting() => AmendAnswer::AlreadyApplied,
        Action::Restore if is_withdrawn(job) => brought_back(job, action, held),
        Action::DeleteEnded { by } if ended_by(job, *by) => AmendAnswer::Applied,
        Action::Delete if is_withdrawn(job) => AmendAnswer::Applied,
        _ if is_withdrawn(job) => AmendAnswer::Refused(state),
        Action::Cancel if state == State::Cancelled => AmendAnswer::AlreadyApplied,
        Action::Cancel if state == State::Running => AmendAnswer::Requested,
        Action::Cancel if state.is_waiting() => AmendAnswer::Applied,
        Action::Requeue { .. } if state.is_terminal() => brought_back(job, action, held),
        Action::Delete if state != State::Running => AmendAnswer::Applied,
        Action::Move { queue } if job.get_str("queue").ok() == Some(queue.as_str()) => {
            AmendAnswer::AlreadyApplied
        }
        Action::Move { .. } if state != State::Running => AmendAnswer::Applied,
        Action::Reprioritise { priority }
            if record::whole(job.get("priority")) == Some(i64::from(*priority)) =>
        {
            AmendAnswer::AlreadyApplied
        }
        Action::Reprioritise { .. } => AmendAnswer::Applied,
        Action::Postpone { due } if state.is_waiting() && due_is(due) => AmendAnswer::AlreadyApplied,
        Action::Postpone { .. } if state.is_waiting() => AmendAnswer::Applied,
        Action::Unpark { .. } if !is_parked(job) => AmendAnswer::AlreadyApplied,
        Action::Unpark { .. } => AmendAnswer::Applied,
        Action::CancelParked if state == State::Cancelled => AmendAnswer::AlreadyApplied,
        Action::CancelParked if is_parked(job) => AmendAnswer::Applied,
        _ => AmendAnswer::Refused(state),
    }
}

/// Writes jobs that are still as they were read, and tells which were.
async fn write(db: &Db, ids: &[JobId], jobs: &[(usize, &Document)], action: &Action) -> Done<HashSet<JobId>> {
    if let Action::Move { queue } = action {
        register(db, std::iter::once(queue)).await?;
    }
    if action.deletes() {
        claim::forget(db, jobs.iter().map(|(_, job)| *job)).await?;
    }
    let mut session = match action {
        // What leaves a queue is counted in the same transaction.
        Action::Delete | Action::DeleteEnded { .. } | Action::Move { .. } => db.atomic().await?,
        _ => db.plain(),
    };
    loop {
        let outcome = try_write(&mut session, ids, jobs, action).await;
        if let Some(written) = session.end(outcome).await? {
            if action.deletes() {
                logs::forget(db, &written).await;
            }
            return Ok(written);
        }
    }
}

async fn try_write(
    session: &mut Session<'_>,
    ids: &[JobId],
    jobs: &[(usize, &Document)],
    action: &Action,
) -> Done<HashSet<JobId>> {
    let (db, call) = (session.db, Uuid::new_v4());
    let all = record::ids(jobs.iter().map(|(i, _)| &ids[*i]));
    if action.deletes() {
        // The transaction reads and removes the same: nothing has to be marked.
        let ended = match action {
            Action::DeleteEnded { by } => doc! {
                "_id": {"$in": all}, "state": {"$nin": [WAITING, RUNNING]}, "finished_at": {"$lte": date(*by)},
            },
            _ => doc! {"_id": {"$in": all}, "state": {"$ne": RUNNING}},
        };
        return Ok(remove_found(session, ended, vec![doc! {"$project": {"queue": 1}}], usize::MAX).await?.0);
    }
    let changes = changes(db, ids, jobs, action, &call);
    let matched = session.update(Kept::Jobs, changes).await?.unless(DUPLICATE)?;
    let written: HashSet<JobId> = if matched == jobs.len() as u64 {
        jobs.iter().map(|(i, _)| ids[*i]).collect()
    } else {
        let marked = doc! {"_id": {"$in": all}, "amended": record::uuid(&call)};
        let marked = vec![doc! {"$match": marked}, doc! {"$project": {"_id": 1}}];
        session.read(Kept::Jobs, marked).await?.iter().filter_map(record::id).collect()
    };
    if matches!(action, Action::Move { .. }) {
        let moved = jobs.iter().filter(|(i, _)| written.contains(&ids[*i])).map(|(_, job)| *job);
        count_out(session, moved).await?;
    }
    Ok(written)
}

/// The statements: one for all jobs that were read alike and change alike.
fn changes(db: &Db, ids: &[JobId], jobs: &[(usize, &Document)], action: &Action, call: &Uuid) -> Vec<Change> {
    let mut alike: BTreeMap<String, (Document, Vec<Document>, Vec<JobId>)> = BTreeMap::new();
    for (i, job) in jobs {
        let (filter, update) = (as_read(job, action), update(db, job, action, call));
        let like = format!("{filter} {update:?}");
        alike.entry(like).or_insert_with(|| (filter, update, Vec::new())).2.push(ids[*i]);
    }
    let change = |(mut filter, update, jobs): (Document, Vec<Document>, Vec<JobId>)| {
        filter.insert("_id", doc! {"$in": record::ids(&jobs)});
        Change::many(filter, update)
    };
    alike.into_values().map(change).collect()
}

/// Counts jobs that leave their queues (clause S2).
pub(crate) async fn count_out<'a>(
    session: &mut Session<'_>,
    jobs: impl Iterator<Item = &'a Document>,
) -> Done<()> {
    let mut left: BTreeMap<&str, i64> = BTreeMap::new();
    for job in jobs {
        *left.entry(job.get_str("queue").unwrap_or_default()).or_default() += 1;
    }
    if left.is_empty() {
        return Ok(());
    }
    let count = |(queue, n): (&str, i64)| {
        let mut change = Change::one(doc! {"_id": queue}, doc! {"$inc": {"deleted": n}});
        change.upsert = true;
        change
    };
    session.update(Kept::Queues, left.into_iter().map(count).collect()).await?.whole().map(drop)
}

/// A filter for jobs that are as this one was read, but for their ids, and for their due times where nothing hangs on those.
fn as_read(job: &Document, action: &Action) -> Document {
    let mut filter = Document::new();
    let compared = ["queue", "priority", "state", "attempt", "generation", "claim", "cancel_requested"];
    for field in compared {
        filter.insert(field, doc! {"$eq": job.get(field).cloned().unwrap_or(Bson::Null)});
    }
    if matches!(action, Action::Unpark { .. } | Action::CancelParked) {
        filter.insert("due", date(Timestamp::MAX));
    }
    filter
}

fn update(db: &Db, job: &Document, action: &Action, call: &Uuid) -> Vec<Document> {
    let mark = record::uuid(call);
    let set = |mut fields: Document| {
        fields.insert("amended", mark.clone());
        vec![doc! {"$set": fields}]
    };
    match action {
        Action::Cancel if state(job) == State::Running => set(doc! {"cancel_requested": true}),
        Action::Cancel => stages(db, Next::ends("cancelled", Reason::Cancelled), doc! {"amended": mark}),
        Action::Requeue { due } => {
            let next = Next::Waits { reason: Reason::Requeued, due: by(db, *due) };
            let mut fields = doc! {
                "amended": mark, "attempt": 0, "crashes": 0, "generation": {"$add": [count("$generation"), 1]},
                "progress": "$$REMOVE", "result": "$$REMOVE",
            };
            fields.extend(key_field(job, action));
            stages(db, next, fields)
        }
        Action::Withdraw => {
            let fields = doc! {"amended": mark, "expires_at": "$$REMOVE"};
            stages(db, Next::ends("cancelled", Reason::Moved), fields)
        }
        Action::Restore => {
            let mut fields = doc! {"amended": mark, "reason": "$$REMOVE"};
            fields.extend(key_field(job, action));
            stages(db, Next::Waits { reason: Reason::Moved, due: "$due".into() }, fields)
        }
        Action::Delete | Action::DeleteEnded { .. } => set(doc! {}),
        Action::Move { queue } => {
            set(doc! {"queue": {"$literal": queue.as_str()}, OFF_TURN: if_it_waits(job)})
        }
        Action::Reprioritise { priority } => {
            set(doc! {"priority": i32::from(*priority), OFF_TURN: if_it_waits(job)})
        }
        Action::Postpone { due } => {
            set(doc! {"due": by(db, *due), "reason": Reason::Postponed.to_string(), OFF_TURN: true})
        }
        Action::Unpark { due } => set(doc! {"due": by(db, *due), "reason": "$$REMOVE", OFF_TURN: true}),
        Action::CancelParked => {
            stages(db, Next::ends("cancelled", Reason::Dependency), doc! {"amended": mark})
        }
    }
}

/// The key that it takes again.
fn key_field(job: &Document, action: &Action) -> Document {
    key_taken_again(job, action).map(|key| doc! {"unique_key": {"$literal": key}}).unwrap_or_default()
}

fn if_it_waits(job: &Document) -> Bson {
    if state(job).is_waiting() { true.into() } else { "$$REMOVE".into() }
}

/// A due time as an expression.
pub(crate) fn by(db: &Db, due: Due) -> Bson {
    match due {
        Due::Now => db.now(),
        Due::In(delay) => doc! {"$add": [db.now(), millis(delay)]}.into(),
        Due::At(at) => date(at),
    }
}

pub(crate) async fn set_queue(db: &Db, request: SetQueue) -> Done<()> {
    let settings = serde_json::to_string(&request.settings)?;
    let fields = doc! {
        "settings": {"$literal": settings}, "paused": request.settings.pause.is_some(),
        "rated": request.settings.rate.is_some(), "changed_at": db.now(),
    };
    let mut change = Change::one(doc! {"_id": request.queue.as_str()}, vec![doc! {"$set": fields}]);
    change.upsert = true;
    let written = db.plain().update(Kept::Queues, vec![change]).await?;
    if written.failed.iter().any(|(_, code, _)| *code == DUPLICATE) {
        return Err(
            Error::new(ErrorKind::Unavailable, "another call set this queue up; repeat the call").into()
        );
    }
    written.whole()?;
    db.signals.tell("queue_set", request.queue.as_str());
    db.signals.tell("waiting", request.queue.as_str());
    Ok(())
}

/// Puts queues on record that this process has not seen before.
pub(crate) async fn register<'a>(db: &Db, queues: impl Iterator<Item = &'a QueueName>) -> Done<()> {
    let new: BTreeSet<&str> = {
        let known = db.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.map(QueueName::as_str).filter(|queue| !known.contains(*queue)).collect()
    };
    if new.is_empty() {
        return Ok(());
    }
    let record = |queue: &&str| {
        let mut change = Change::one(doc! {"_id": *queue}, doc! {"$setOnInsert": {"deleted": 0_i64}});
        change.upsert = true;
        change
    };
    // One that another process has just put there is there.
    let written = db.plain().update(Kept::Queues, new.iter().map(record).collect()).await?;
    written.unless(DUPLICATE)?;
    let mut known = db.queues.lock().unwrap_or_else(PoisonError::into_inner);
    known.extend(new.into_iter().map(str::to_owned));
    Ok(())
}

pub(crate) async fn queues(db: &Db) -> Done<Vec<QueueRecord>> {
    let mut queues: BTreeMap<QueueName, QueueRecord> = BTreeMap::new();
    for document in db.plain().read(Kept::Queues, vec![]).await? {
        let fields = Fields(&document);
        let Ok(queue) = QueueName::new(document.get_str("_id").unwrap_or_default()) else { continue };
        let settings = document.get_str("settings").map(serde_json::from_str).ok().and_then(Result::ok);
        let changed_at = fields.moment("changed_at").map_err(Error::corrupt)?;
        queues.insert(queue.clone(), QueueRecord::new(queue, settings.unwrap_or_default(), changed_at));
    }
    Ok(queues.into_values().collect())
}

pub(crate) async fn prune(db: &Db, request: Prune) -> Done<Pruned> {
    let limit = at_most(request.limit).saturating_add(1);
    let over = || {
        doc! {
            "queue": {"$gte": ""}, "state": {"$in": ["succeeded", "failed", "cancelled"]},
            "finished_at": {"$gt": DateTime::MIN}, "expires_at": {"$type": "date"},
            "$expr": {"$lt": ["$expires_at", db.now()]},
        }
    };
    let mut session = db.atomic().await?;
    let (jobs, more) = loop {
        let pipeline = vec![doc! {"$limit": limit}, doc! {"$project": {"queue": 1, "settlements.claim": 1}}];
        let outcome = remove_found(&mut session, over(), pipeline, request.limit).await;
        if let Some(removed) = session.end(outcome).await? {
            break removed;
        }
    };
    logs::forget(db, &jobs).await;
    let gone = doc! {
        "seen_at": {"$type": "date"},
        "$expr": {"$lt": ["$seen_at", {"$subtract": [db.now(), millis(request.workers_after)]}]},
    };
    let workers = db.plain().delete(Kept::Workers, gone).await?;
    let (registers, more_registers) = registers::prune(db, request.limit).await?;
    Ok(Pruned { jobs: jobs.len() as u64, workers, registers, more: more || more_registers })
}

/// Removes the first jobs that a filter and the rest of a pipeline find, and tells which, and whether there are more.
/// Their logs go after the commit, because capped collections take no writes in transactions.
async fn remove_found(
    session: &mut Session<'_>,
    filter: Document,
    mut pipeline: Vec<Document>,
    limit: usize,
) -> Done<(HashSet<JobId>, bool)> {
    pipeline.insert(0, doc! {"$match": &filter});
    let mut found = session.read(Kept::Jobs, pipeline).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    if found.is_empty() {
        return Ok((HashSet::new(), more));
    }
    claim::forget(session.db, found.iter()).await?;
    // Also those whose ids are not of ours, which were set aside.
    let ids: Vec<_> = found.iter().filter_map(|job| job.get("_id").cloned()).collect();
    // Where there are no transactions, somebody may have brought one back since.
    let still = doc! {"$and": [{"_id": {"$in": &ids}}, filter]};
    if session.delete(Kept::Jobs, still).await? < found.len() as u64 {
        let left = vec![doc! {"$match": {"_id": {"$in": ids}}}, doc! {"$project": {"_id": 1}}];
        let left = session.read_now(Kept::Jobs, left).await?;
        found.retain(|job| left.iter().all(|other| other.get("_id") != job.get("_id")));
    }
    count_out(session, found.iter()).await?;
    Ok((found.iter().filter_map(record::id).collect(), more))
}
