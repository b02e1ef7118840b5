//! Looks for jobs that may be taken, and for what else a claim has to know, by one query.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_core::backend::{Claim, Claimed, KindRule, SetAside, TagRule};
use leasehold_core::{JobRecord, QueueName, State, Timestamp};
use mongodb::bson::{Bson, Document, doc};
use tokio::time::Instant;

use crate::error::Done;
use crate::heads::Marks;
use crate::record::{self, Fields, LIMIT_ENDS, OFF_TURN, WAITING};
use crate::replace::REPLACEMENTS;
use crate::session::{Db, Kept, date};

/// How many queues one scan merges in order. Of more than 200 the server reads and sorts all that wait.
const QUEUES: usize = 100;

/// Which jobs a claim is about.
pub(crate) struct Selection {
    /// What tells selections apart that see different heads of queues.
    pub(crate) name: String,
    /// Limit keys that are full, each for jobs that allow no more than so many.
    pub(crate) full: Vec<Document>,
    queues: Vec<String>,
    /// Those, and the roots that they lie under: a pause of either keeps them shut (clause C10).
    openers: Vec<String>,
    wanted: Document,
}

impl Selection {
    pub(crate) fn new(request: &Claim, queues: &[&QueueName]) -> Self {
        let roots = queues.iter().flat_map(|queue| queue.roots()).map(String::from);
        let openers: BTreeSet<String> =
            queues.iter().map(|queue| queue.as_str().to_owned()).chain(roots).collect();
        let openers = openers.into_iter().collect();
        let queues: Vec<_> = queues.iter().map(|queue| queue.as_str().to_owned()).collect();
        let wanted = wanted(request);
        Self { name: format!("{queues:?} {wanted}"), full: Vec::new(), queues, openers, wanted }
    }

    /// The condition for jobs that wait in a place and may be taken when they are due.
    fn waiting(&self, place: Document) -> Document {
        let mut filter = self.wanted.clone();
        filter.extend(place);
        filter.insert("state", WAITING);
        if !self.full.is_empty() {
            // One that ends rather than waits is met all the same, but not where nobody could count what runs.
            let waits = |mut full: Document| {
                if full.contains_key("limit_max") {
                    full.insert(LIMIT_ENDS, doc! {"$ne": true});
                }
                full
            };
            filter.insert("$nor", self.full.iter().cloned().map(waits).collect::<Vec<_>>());
        }
        filter
    }

    /// The condition for due jobs from the marks on.
    fn from(&self, db: &Db, queues: &[String], marks: Option<&Marks>) -> Document {
        let of = |place: Document| {
            let mut filter = self.waiting(place);
            filter.insert("$expr", doc! {"$lte": ["$due", db.now()]});
            filter
        };
        let Some(marks) = marks else { return of(doc! {"queue": any_of(queues)}) };
        let places = queues.iter().flat_map(|queue| places(queue, marks));
        doc! {"$or": places.map(of).collect::<Vec<_>>()}
    }

    /// The condition for due jobs.
    pub(crate) fn due(&self, db: &Db) -> Document {
        self.from(db, &self.queues, None)
    }

    /// The condition for jobs that were put before the marks.
    fn below(&self, queues: &[String], marks: &Marks) -> Document {
        let latest = marks.values().max().copied().unwrap_or_default();
        self.waiting(doc! {"queue": any_of(queues), OFF_TURN: true, "due": {"$lt": date(latest)}})
    }
}

/// A queue in parts: from its mark on for each priority that has one, and whole for what lies between.
fn places(queue: &str, marks: &Marks) -> Vec<Document> {
    let known: Vec<_> = marks.iter().filter(|((of, _), _)| of == queue).rev().collect();
    let mut places = Vec::with_capacity(known.len() * 2 + 1);
    let mut above: Option<i32> = None;
    for ((_, priority), due) in known {
        places.push(doc! {"queue": queue, "priority": between(Some(*priority), above)});
        places.push(doc! {"queue": queue, "priority": priority, "due": {"$gte": date(*due)}});
        above = Some(*priority);
    }
    places.push(match above {
        None => doc! {"queue": queue},
        Some(_) => doc! {"queue": queue, "priority": between(None, above)},
    });
    places
}

fn between(more_than: Option<i32>, less_than: Option<i32>) -> Document {
    let mut bounds = Document::new();
    bounds.extend(more_than.map(|bound| ("$gt".to_owned(), bound.into())));
    bounds.extend(less_than.map(|bound| ("$lt".to_owned(), bound.into())));
    bounds
}

fn any_of(texts: &[String]) -> Bson {
    match texts {
        [text] => text.as_str().into(),
        texts => doc! {"$in": texts}.into(),
    }
}

/// What a job must be besides: its kind, tags and priority.
fn wanted(request: &Claim) -> Document {
    let mut wanted = Document::new();
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
        // Beside the bounds of a place.
        wanted.insert("$and", vec![doc! {"priority": {"$gte": i32::from(least)}}]);
    }
    wanted
}

/// A job that may be taken, as it will be then.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: Bson,
    pub(crate) job: JobRecord,
    pub(crate) lease: Duration,
    /// Its limit key, and how many of it may run.
    pub(crate) limit: Option<(String, i64)>,
    /// Whether it ends rather than waits for room.
    pub(crate) ends: bool,
    /// Whether it has anything that taking it removes.
    pub(crate) is_used: bool,
    /// How often it was replaced, where that can happen any time: its payload was as it was read only as long as that is so.
    pub(crate) replacements: Option<Bson>,
}

impl Candidate {
    pub(crate) fn read(document: &Document, request: &Claim, now: Timestamp) -> Result<Self, SetAside> {
        let mut job = record::read_at(document, now)?;
        let lease = job.options.lease.unwrap_or(request.lease);
        job.state = State::Running;
        job.reason = None;
        job.attempt = job.attempt.checked_add(1).ok_or_else(|| too_many(&job))?;
        // Our estimate may be behind the server's clock, by which the job will be due when it is taken (clause C8).
        job.started_at = Some(now.max(job.due));
        job.worker = Some(request.worker);
        job.lease_until = Some(now.plus(lease));
        let max = record::whole(document.get("limit_max")).unwrap_or(i64::MAX);
        let limit = document.get_str("limit_key").ok().map(|key| (key.to_owned(), max));
        let is_used = ["reason", OFF_TURN, "unique_key"].iter().any(|field| document.contains_key(field));
        let id = document.get("_id").cloned().unwrap_or_default();
        let replaceable = document.contains_key("unique_key");
        let replacements = replaceable.then(|| document.get(REPLACEMENTS).cloned().unwrap_or(Bson::Null));
        let ends = document.get_bool(LIMIT_ENDS).unwrap_or(false);
        Ok(Self { id, job, lease, limit, ends, is_used, replacements })
    }

    /// Whether one statement can take both.
    pub(crate) fn is_written_like(&self, other: &Self) -> bool {
        let written =
            |it: &Self| (it.job.attempt, it.job.generation, it.lease, it.is_used, it.replacements.clone());
        written(self) == written(other)
    }
}

fn too_many(job: &JobRecord) -> SetAside {
    SetAside { job: Some(job.id), why: "no attempt can be counted any more".into() }
}

/// What a look found.
#[derive(Default)]
pub(crate) struct Look {
    /// The first due jobs, in order.
    pub(crate) candidates: Vec<Candidate>,
    /// Records that cannot be read.
    pub(crate) bad: Vec<(Bson, SetAside)>,
    /// What this very claim was about to take, if it was made before (clause E2).
    pub(crate) repeats: Option<Vec<Bson>>,
    /// Which of the queues give this claim nothing: they are paused, or have a rate that it knows nothing of.
    pub(crate) shut: BTreeSet<String>,
    /// Which of those, and of the roots that the queues lie under, are paused.
    pub(crate) paused: BTreeSet<String>,
    /// The time until the next job is due that is not yet.
    pub(crate) next_due: Option<Duration>,
}

/// Looks for so many candidates, after so many others.
pub(crate) async fn look(
    db: &Db,
    request: &Claim,
    selection: &Selection,
    room: usize,
    skip: usize,
) -> Done<Look> {
    let (now, mut marks) = (db.stamp().await?.no_later, db.heads.marks(&selection.name));
    let read = async |marks: Option<&Marks>| {
        db.plain().read_now(Kept::Claims, query(db, request, selection, marks, room, skip)).await
    };
    let mut begun = Instant::now();
    let mut found = read(marks.as_ref()).await?;
    if room > 0 && marks.as_ref().is_some_and(|marks| below(&found, marks) >= room) {
        // There may be more of them, and of higher priority.
        (marks, begun) = (None, Instant::now());
        found = read(None).await?;
    }
    let took = begun.elapsed();
    let (mut look, mut first) = (Look::default(), Marks::new());
    let mut seen = std::collections::HashSet::new();
    for document in found {
        if let Some(jobs) = document.get("repeats") {
            look.repeats = Some(jobs.as_array().cloned().unwrap_or_default());
        } else if let Ok(queue) = document.get_str("shut") {
            look.shut.insert(queue.to_owned());
            if document.get_bool("paused").unwrap_or(false) {
                look.paused.insert(queue.to_owned());
            }
        } else if document.contains_key("next") {
            look.next_due = look.next_due.into_iter().chain(until(&document)).min();
        } else if let Some(id) = document.get("_id").cloned() {
            match Candidate::read(&document, request, now) {
                Ok(candidate) if !seen.insert(candidate.job.id) => {}
                Ok(candidate) => {
                    let place = (candidate.job.queue.to_string(), candidate.job.options.priority.into());
                    first
                        .entry(place)
                        .and_modify(|due| *due = candidate.job.due.min(*due))
                        .or_insert(candidate.job.due);
                    look.candidates.push(candidate);
                }
                Err(why) => look.bad.push((id, why)),
            }
        }
    }
    look.candidates.sort_by_key(|candidate| {
        let job = &candidate.job;
        (std::cmp::Reverse(job.options.priority), job.due, job.id)
    });
    look.candidates.truncate(room);
    if skip == 0 && selection.full.is_empty() {
        db.heads.learn(&selection.name, first, now, marks.is_none().then_some(took));
    }
    Ok(look)
}

/// How many of these were put before the marks.
fn below(found: &[Document], marks: &Marks) -> usize {
    let latest = marks.values().max().map_or(i64::MIN, |mark| mark.as_millis());
    let is_below = |job: &&Document| {
        job.contains_key(OFF_TURN) && job.get_datetime("due").is_ok_and(|due| due.timestamp_millis() < latest)
    };
    found.iter().filter(is_below).count()
}

fn until(next: &Document) -> Option<Duration> {
    let fields = Fields(next);
    Claimed::until(fields.moment("next").ok()??, fields.moment("now").ok()??)
}

fn query(
    db: &Db,
    request: &Claim,
    selection: &Selection,
    marks: Option<&Marks>,
    room: usize,
    skip: usize,
) -> Vec<Document> {
    let (jobs, limit) = (db.name(Kept::Jobs), i64::try_from(room).unwrap_or(i64::MAX));
    let from_jobs = |pipeline: Vec<Document>| doc! {"$unionWith": {"coll": &jobs, "pipeline": pipeline}};
    let mut shut = vec![doc! {"paused": true}];
    if !request.rated {
        shut.push(doc! {"rated": true});
    }
    let mut query = vec![
        doc! {"$match": {"_id": record::uuid(request.id.as_uuid())}},
        doc! {"$project": {"repeats": "$jobs"}},
        doc! {"$unionWith": {"coll": db.name(Kept::Queues), "pipeline": [
            {"$match": {"_id": any_of(&selection.openers), "$or": shut}}, {"$project": {"shut": "$_id", "paused": true}},
        ]}},
    ];
    for queues in selection.queues.chunks(QUEUES) {
        query.push(from_jobs(vec![
            doc! {"$match": {"queue": any_of(queues), OFF_TURN: true, "$expr": {"$gt": ["$due", db.now()]}}},
            doc! {"$sort": {"due": 1}},
            doc! {"$limit": 1},
            doc! {"$project": {"next": "$due", "now": db.now()}},
        ]));
        if room == 0 {
            continue;
        }
        if let Some(marks) = marks {
            let below = doc! {"$match": selection.below(queues, marks)};
            query.push(from_jobs(vec![below, doc! {"$sort": {"due": 1}}, doc! {"$limit": limit}]));
        }
        let mut from = vec![
            doc! {"$match": selection.from(db, queues, marks)},
            doc! {"$sort": {"priority": -1, "due": 1, "_id": 1}},
        ];
        if skip > 0 {
            from.push(doc! {"$skip": i64::try_from(skip).unwrap_or(0)});
        }
        from.push(doc! {"$limit": limit});
        query.push(from_jobs(from));
    }
    query
}
