//! Jobs as documents: their fields, and how documents become records (clause B3).

use std::collections::HashMap;

use leasehold_core::backend::{Arrival, SetAside};
use leasehold_core::{
    Due, Failure, JobId, JobOptions, JobRecord, Keep, Kind, NewJob, Payload, QueueName, Reason, Retention,
    State, Timestamp, UniqueScope, WorkerId,
};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use uuid::Uuid;

use crate::error::Done;
use crate::hour::Stamp;
use crate::log_head::Arrived;
use crate::session::{Db, Kept, date, millis};

/// How a job's state is written while it waits; whether it is due, its due time tells.
pub(crate) const WAITING: &str = "waiting";
/// Set in a job that waits and did not come in as simply due: it was delayed or put back, so it may stand anywhere in
/// its queue.
pub(crate) const OFF_TURN: &str = "off_turn";
/// Set in a job that ends rather than waits for room under its limit key.
pub(crate) const LIMIT_ENDS: &str = "limit_ends";
/// How the state of a job that runs is written.
pub(crate) const RUNNING: &str = "running";

/// How a state is written.
pub(crate) fn word(state: State) -> &'static str {
    if state.is_waiting() { WAITING } else { state.into() }
}

/// An id as the server keeps it.
pub(crate) fn uuid(id: &Uuid) -> Bson {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() }.into()
}

/// Ids as the server keeps them.
pub(crate) fn ids<'a>(ids: impl IntoIterator<Item = &'a JobId>) -> Vec<Bson> {
    ids.into_iter().map(|id| uuid(id.as_uuid())).collect()
}

/// The condition for those of the jobs that run under a claim: what every write under a lease compares (clause C2).
pub(crate) fn held(jobs: Vec<Bson>, claim: &Uuid) -> Document {
    doc! {"_id": {"$in": jobs}, "state": RUNNING, "claim": uuid(claim)}
}

/// Bytes as the server keeps them.
pub(crate) fn bytes(payload: &Payload) -> Bson {
    Binary { subtype: BinarySubtype::Generic, bytes: payload.as_bytes().to_vec() }.into()
}

/// A whole number of any kind, as shells and tools write them.
pub(crate) fn whole(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => Some(*n),
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(*n as i64),
        _ => None,
    }
}

/// The document of a job that is taken in at `now`.
pub(crate) fn document(job: &NewJob, stamp: Stamp) -> Done<Document> {
    let (options, now) = (&job.options, stamp.no_later);
    let due = match job.due {
        Due::Now => now,
        Due::In(_) | Due::At(_) => job.due.by(stamp.no_earlier),
    };
    let mut document = doc! {
        "_id": uuid(job.id.as_uuid()),
        "queue": job.queue.as_str(),
        "kind": job.kind.as_str(),
        "priority": i32::from(options.priority),
        "state": WAITING,
        "due": date(due),
        "attempt": 0,
        "max_attempts": i64::from(options.max_attempts),
        "crashes": 0,
        "generation": 0,
        "enqueued_at": date(now),
        "cancel_requested": false,
        "keep": {
            "succeeded": keep(options.retention.succeeded),
            "failed": keep(options.retention.failed),
            "cancelled": keep(options.retention.cancelled),
        },
        "payload": bytes(&job.payload),
    };
    if !options.are_usual() {
        document.insert("options", serde_json::to_string(options)?);
    }
    if !options.tags.is_empty() {
        document.insert("tags", options.tags.iter().map(leasehold_core::Tag::as_str).collect::<Vec<_>>());
    }
    if due != now {
        document.insert(OFF_TURN, true);
    }
    if let Some(limit) = &options.limit {
        document.insert("limit_key", limit.key.as_str());
        document.insert("limit_max", i64::from(limit.max));
        if !limit.when_full.is_wait() {
            document.insert(LIMIT_ENDS, true);
        }
    }
    if let Some(unique) = &options.unique {
        document.insert("unique_key", unique.key.as_str());
        document.insert("unique_scope", scope(unique.scope));
        if let UniqueScope::For(span) = unique.scope {
            document.insert("unique_until", date(stamp.no_earlier.plus(span)));
        }
    }
    Ok(document)
}

/// The document of a job that comes from another store, with the head of its log.
pub(crate) fn admitted(arrival: &Arrival, now: Stamp, log: Option<&Arrived<'_>>) -> Done<Document> {
    let job = &arrival.job;
    let mut document = document(&arrival.newcomer(now.no_later), now)?;
    let uuid_of = |worker: Option<WorkerId>| worker.map(|worker| uuid(worker.as_uuid()));
    let mut fields = doc! {
        "state": word(job.state), "attempt": i64::from(job.attempt), "crashes": i64::from(job.crashes),
        "generation": i64::from(job.generation), "enqueued_at": date(job.enqueued_at),
    };
    let mut add = |name: &str, value: Option<Bson>| {
        value.into_iter().for_each(|value| drop(fields.insert(name, value)));
    };
    add("reason", job.reason.map(|reason| reason.to_string().into()));
    add("started_at", job.started_at.map(date));
    add("finished_at", job.finished_at.map(date));
    add("expires_at", job.expires_at.map(date));
    add("worker", uuid_of(job.worker));
    add("progress", job.progress.as_ref().map(serde_json::to_string).transpose()?.map(Bson::from));
    add("result", job.result.as_ref().map(bytes));
    add("error_class", job.last_failure().map(|failure| failure.class.as_str().into()));
    let failure = |failure: &Failure| {
        doc! {
            "attempt": i64::from(failure.attempt), "worker": uuid_of(failure.worker), "at": date(failure.at),
            "reason": failure.reason.to_string(), "class": &failure.class, "message": &failure.message,
        }
    };
    let history: Vec<Document> = job.history.iter().map(failure).collect();
    add("history", (!history.is_empty()).then(|| history.into()));
    add(
        "options",
        if job.options.are_usual() { None } else { Some(serde_json::to_string(&job.options)?.into()) },
    );
    if let Some(unique) = &job.options.unique {
        add("unique_scope", Some(scope(unique.scope).into()));
        let period = if let UniqueScope::For(period) = unique.scope { Some(period) } else { None };
        let holds = document.contains_key("unique_key");
        add("unique_until", period.filter(|_| holds).map(|period| date(job.enqueued_at.plus(period))));
    }
    add(OFF_TURN, job.state.is_waiting().then_some(true.into()));
    add("log", log.map(|log| log.head(now.no_later).into()));
    document.remove(OFF_TURN);
    document.extend(fields);
    Ok(document)
}

/// How long an ended job is kept, in milliseconds; negative for ever.
fn keep(keep: Keep) -> i64 {
    keep.span().map_or(-1, millis)
}

/// How the scopes of unique keys are written (clause P4).
fn scope(scope: UniqueScope) -> &'static str {
    match scope {
        UniqueScope::UntilClaimed => UNTIL_CLAIMED,
        UniqueScope::UntilFinished => "until_finished",
        UniqueScope::For(_) => FOR_A_PERIOD,
    }
}

pub(crate) const UNTIL_CLAIMED: &str = "until_claimed";
pub(crate) const FOR_A_PERIOD: &str = "for";

/// The stage that tells each document the server's hour, for [`read`].
pub(crate) fn with_now(db: &Db) -> Document {
    doc! {"$set": {"now": db.now()}}
}

/// The job in a document that was told the hour, or what is wrong with it.
pub(crate) fn read(document: &Document) -> Result<JobRecord, SetAside> {
    let now = Fields(document).moment("now").and_then(|now| now.ok_or("its hour is missing".into()));
    now.and_then(|now| try_read(document, now)).map_err(|error| unreadable(document, &error))
}

/// The id of a document, if it can be read.
pub(crate) fn id(document: &Document) -> Option<JobId> {
    as_uuid(document.get("_id")?).map(JobId::from_uuid)
}

pub(crate) fn as_uuid(value: &Bson) -> Option<Uuid> {
    match value {
        Bson::Binary(binary) => Uuid::from_slice(&binary.bytes).ok(),
        _ => None,
    }
}

/// The job in a document, by this hour.
pub(crate) fn read_at(document: &Document, now: Timestamp) -> Result<JobRecord, SetAside> {
    try_read(document, now).map_err(|error| unreadable(document, &error))
}

fn unreadable(document: &Document, error: &Unreadable) -> SetAside {
    SetAside::new(id(document), error)
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn try_read(document: &Document, now: Timestamp) -> Result<JobRecord, Unreadable> {
    let fields = Fields(document);
    let queue = QueueName::new(fields.text("queue")?.ok_or("it has no queue")?)?;
    let kind = Kind::new(fields.text("kind")?.ok_or("it has no kind")?)?;
    let due = fields.moment("due")?.ok_or("it has no due time")?;
    let enqueued_at = fields.moment("enqueued_at")?.ok_or("it has no time of enqueue")?;
    let payload = fields.bytes("payload")?.ok_or("it has no payload")?;
    let mut options: JobOptions = fields.json("options")?.unwrap_or_default();
    options.priority = fields.number("priority")?;
    let id = fields.uuid("_id")?.map(JobId::from_uuid).ok_or("it has no id")?;
    let mut job = JobRecord::new(id, queue, kind, payload, options, due, enqueued_at);
    job.state = match fields.text("state")?.ok_or("it has no state")? {
        WAITING => State::waiting(due, now),
        other => other.parse().map_err(|_| format!("there is no state {other:?}"))?,
    };
    job.reason = fields.text("reason")?.map(str::parse).transpose()?;
    job.attempt = fields.number("attempt")?;
    job.crashes = fields.number("crashes")?;
    job.generation = fields.number("generation")?;
    job.started_at = fields.moment("started_at")?;
    job.finished_at = fields.moment("finished_at")?;
    job.expires_at = fields.moment("expires_at")?;
    job.worker = fields.uuid("worker")?.map(WorkerId::from_uuid);
    job.lease_until = fields.moment("lease_until")?;
    job.cancel_requested = fields.flag("cancel_requested")?;
    job.progress = fields.json("progress")?;
    job.result = fields.bytes("result")?;
    job.history = history(document)?;
    let keep = document.get_document("keep").map_err(|_| "it does not say how long to keep it")?;
    for (state, span) in keep {
        whole(Some(span)).ok_or_else(|| odd(&format!("keep.{state}"), span.element_type()))?;
    }
    Ok(job)
}

fn history(document: &Document) -> Result<Vec<Failure>, Unreadable> {
    let none = Vec::new();
    let failures = match document.get("history") {
        None => &none,
        Some(Bson::Array(failures)) => failures,
        Some(_) => return Err("its history is no list".into()),
    };
    failures
        .iter()
        .map(|failure| failed(failure.as_document().ok_or("its history has an odd entry")?))
        .collect()
}

fn failed(document: &Document) -> Result<Failure, Unreadable> {
    let fields = Fields(document);
    Ok(Failure {
        attempt: fields.number("attempt")?,
        worker: fields.uuid("worker")?.map(WorkerId::from_uuid),
        at: fields.moment("at")?.unwrap_or_default(),
        reason: fields.text("reason")?.unwrap_or_default().parse::<Reason>()?,
        class: fields.text("class")?.unwrap_or_default().to_owned(),
        message: fields.text("message")?.unwrap_or_default().to_owned(),
    })
}

/// Reads fields of known kinds; a missing one is none, one of another kind an error.
pub(crate) struct Fields<'a>(pub(crate) &'a Document);

impl<'a> Fields<'a> {
    fn get<T>(&self, name: &str, read: impl FnOnce(&'a Bson) -> Option<T>) -> Result<Option<T>, Unreadable> {
        match self.0.get(name) {
            None | Some(Bson::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(odd(name, value.element_type().to_owned())),
            },
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Unreadable> {
        self.get(name, Bson::as_str)
    }

    pub(crate) fn moment(&self, name: &str) -> Result<Option<Timestamp>, Unreadable> {
        self.get(name, |value| Some(Timestamp::from_millis(value.as_datetime()?.timestamp_millis())))
    }

    pub(crate) fn uuid(&self, name: &str) -> Result<Option<Uuid>, Unreadable> {
        self.get(name, as_uuid)
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Unreadable> {
        Ok(self.get(name, Bson::as_bool)?.unwrap_or(false))
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, Unreadable> {
        let number = self.get(name, |value| T::try_from(whole(Some(value))?).ok())?;
        number.ok_or_else(|| odd(name, "nothing"))
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Option<Payload>, Unreadable> {
        self.get(name, |value| match value {
            Bson::Binary(binary) => Some(Payload::from(binary.bytes.clone())),
            _ => None,
        })
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Unreadable> {
        Ok(self.text(name)?.map(serde_json::from_str).transpose()?)
    }
}

fn odd(name: &str, is: impl std::fmt::Debug) -> Unreadable {
    format!("its field {name:?} is {is:?}").into()
}

/// Reads these jobs' documents as far as `fields` goes, told the hour, by id.
pub(crate) async fn load(db: &Db, jobs: Vec<Bson>, fields: &[&str]) -> Done<HashMap<JobId, Document>> {
    let mut wanted: Document = fields.iter().map(|field| ((*field).to_owned(), Bson::from(1))).collect();
    wanted.insert("now", db.now());
    let pipeline = vec![doc! {"$match": {"_id": {"$in": jobs}}}, doc! {"$project": wanted}];
    let found = db.plain().read(Kept::Jobs, pipeline).await?;
    Ok(found.into_iter().filter_map(|document| Some((id(&document)?, document))).collect())
}

/// Takes records that cannot be read out of the way, as failed (clause B3).
pub(crate) async fn set_aside(db: &Db, bad: &[(Bson, SetAside)]) -> Done<()> {
    use crate::session::Change;
    if bad.is_empty() {
        return Ok(());
    }
    for (_, bad) in bad {
        tracing::warn!(job = ?bad.job, why = bad.why, "a record was set aside");
    }
    let kept = Retention::default().failed.span().map_or(i64::MAX, millis);
    let update = vec![
        doc! {"$set": {
            "state": "failed", "reason": "unreadable", "finished_at": db.now(),
            "expires_at": {"$add": [db.now(), kept]},
        }},
        doc! {"$unset": ["claim", "lease_until", "unique_key", OFF_TURN]},
    ];
    let ids: Vec<_> = bad.iter().map(|(id, _)| id.clone()).collect();
    let filter = doc! {"_id": {"$in": ids}, "state": {"$in": [WAITING, RUNNING]}};
    db.plain().update(Kept::Jobs, vec![Change::many(filter, update)]).await?.whole()?;
    Ok(())
}
