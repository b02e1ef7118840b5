//! Shows jobs and counts: see `Backend::find`, `list` and `counts`.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{Age, Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts};
use leasehold_core::{Error, JobId, JobRecord, QueueName, State, Timestamp};
use mongodb::bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use mongodb::options::ReadConcern;

use crate::error::Done;
use crate::record::{self, Fields, RUNNING, WAITING, with_now, word};
use crate::session::{Db, Kept, date, readable};

/// How many jobs one call looks at to find those that match a filter. A page may be short for it, and says so.
const LOOK_AT: i64 = 20_000;

pub(crate) async fn find(db: &Db, request: Find) -> Done<Vec<Option<JobRecord>>> {
    let pipeline = vec![doc! {"$match": {"_id": {"$in": record::ids(&request.ids)}}}, with_now(db)];
    let mut found = BTreeMap::new();
    for document in db.plain().read(Kept::Jobs, pipeline).await? {
        let job = record::read(&document).map_err(Error::from)?;
        found.insert(job.id, job);
    }
    Ok(request.ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub(crate) async fn list(db: &Db, request: List) -> Done<Page> {
    let (found, next) =
        matching(db, &request.filter, request.order, request.after.as_ref(), request.limit, true).await?;
    let mut page = Page { next, ..Page::default() };
    for document in &found {
        page.push(record::read(document));
    }
    Ok(page)
}

/// The first jobs after `after` that match, and where to go on. It looks at no more than [`LOOK_AT`] jobs.
pub(crate) async fn matching(
    db: &Db,
    filter: &Filter,
    order: Order,
    after: Option<&Cursor>,
    limit: usize,
    whole: bool,
) -> Done<(Vec<Document>, Option<Cursor>)> {
    let after = after.map(|cursor| cursor.age(order)).transpose()?;
    let place = place(filter, order, after);
    let by = by(order);
    let mut pipeline = vec![
        doc! {"$match": place.clone()},
        doc! {"$sort": by.clone()},
        doc! {"$limit": LOOK_AT},
        doc! {"$match": conditions(db, filter)},
    ];
    let text = filter.payload_contains.as_ref().filter(|text| !text.is_empty());
    if text.is_none() {
        // Only one more shows that there is a next page.
        pipeline.push(doc! {"$limit": at_most(limit).saturating_add(1)});
        if !whole {
            pipeline.push(doc! {"$project": {"enqueued_at": 1}});
        }
    }
    pipeline.push(with_now(db));
    let mut session = db.causal().await?;
    let jobs = db.of(Kept::Jobs);
    let reading = jobs.aggregate(pipeline).with_type::<RawDocumentBuf>();
    let mut cursor = reading.session(&mut session).await?;
    let mut found = Vec::new();
    while found.len() <= limit
        && let Some(document) = cursor.next(&mut session).await.transpose()?
    {
        let document = readable(&document);
        if text.is_none_or(|text| has_text(&document, text)) {
            found.push(document);
        }
    }
    let last = if found.len() > limit {
        found.truncate(limit);
        found.last().map(|last| Cursor::after(order, age(last)))
    } else {
        // The last that was looked at, if there is another one behind it.
        let look = vec![
            doc! {"$match": place},
            doc! {"$sort": by},
            doc! {"$skip": LOOK_AT - 1},
            doc! {"$limit": 2},
            doc! {"$project": {"enqueued_at": 1}},
        ];
        let looked = db.plain().read(Kept::Jobs, look).await?;
        (looked.len() == 2).then(|| Cursor::after(order, age(&looked[0])))
    };
    Ok((found, last))
}

fn has_text(document: &Document, text: &str) -> bool {
    let Some(Bson::Binary(payload)) = document.get("payload") else { return false };
    payload.bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn by(order: Order) -> Document {
    match order {
        Order::NewestFirst => doc! {"enqueued_at": -1, "_id": -1},
        Order::OldestFirst => doc! {"enqueued_at": 1, "_id": 1},
    }
}

/// The part of a list that is asked for, as far as the place alone tells it.
fn place(filter: &Filter, order: Order, after: Option<Age>) -> Document {
    let mut bounds = Vec::new();
    bounds.extend(filter.enqueued_from.map(|from| doc! {"enqueued_at": {"$gte": date(from)}}));
    bounds.extend(filter.enqueued_until.map(|until| doc! {"enqueued_at": {"$lte": date(until)}}));
    if let Some((at, id)) = after {
        let (than, or) = if order == Order::NewestFirst { ("$lt", "$lte") } else { ("$gt", "$gte") };
        bounds.push(doc! {"enqueued_at": {or: date(at)}});
        bounds.push(
            doc! {"$or": [{"enqueued_at": {than: date(at)}}, {"_id": {than: record::uuid(id.as_uuid())}}]},
        );
    }
    if bounds.is_empty() {
        doc! {}
    } else {
        doc! {"$and": bounds}
    }
}

/// A job's place in every list.
fn age(document: &Document) -> Age {
    let at = document.get_datetime("enqueued_at").map_or(0, |at| at.timestamp_millis());
    let id = document.get("_id").and_then(record::as_uuid).unwrap_or_default();
    (Timestamp::from_millis(at), JobId::from_uuid(id))
}

/// `Filter::matches` for the server, but for the payload's text.
fn conditions(db: &Db, filter: &Filter) -> Document {
    fn any<T>(field: &str, wanted: Option<&Vec<T>>, text: impl Fn(&T) -> Bson) -> Option<Document> {
        wanted.map(|wanted| doc! {field: {"$in": wanted.iter().map(text).collect::<Vec<_>>()}})
    }
    let mut all = Vec::new();
    all.extend(any("queue", filter.queues.as_ref(), |queue| queue.as_str().into()));
    all.extend(any("kind", filter.kinds.as_ref(), |kind| kind.as_str().into()));
    all.extend(any("reason", filter.reasons.as_ref(), |reason| reason.to_string().into()));
    if let Some(tags) = filter.tags.as_ref().filter(|tags| !tags.is_empty()) {
        all.push(doc! {"tags": {"$all": tags.iter().map(leasehold_core::Tag::as_str).collect::<Vec<_>>()}});
    }
    all.extend(filter.worker.map(|worker| doc! {"worker": record::uuid(worker.as_uuid())}));
    all.extend(filter.error_class.as_ref().map(|class| doc! {"error_class": {"$eq": class}}));
    if let Some(states) = &filter.states {
        let any: Vec<_> = states.iter().map(|state| in_state(db, *state)).collect();
        all.push(if any.is_empty() {
            doc! {"_id": {"$in": []}}
        } else {
            doc! {"$or": any}
        });
    }
    if all.is_empty() {
        doc! {}
    } else {
        doc! {"$and": all}
    }
}

fn in_state(db: &Db, state: State) -> Document {
    match state {
        State::Scheduled => doc! {"state": WAITING, "$expr": {"$gt": ["$due", db.now()]}},
        State::Queued => doc! {"state": WAITING, "$expr": {"$lte": ["$due", db.now()]}},
        other => doc! {"state": word(other)},
    }
}

pub(crate) async fn counts(db: &Db, request: Counts) -> Done<Vec<QueueCounts>> {
    let only = |field: &str| match &request.queues {
        Some(queues) => doc! {field: {"$in": queues.iter().map(QueueName::as_str).collect::<Vec<_>>()}},
        // A bound that lets the index do it.
        None => doc! {field: {"$gte": ""}},
    };
    let in_jobs = |mut of: Document, state: Bson, more: Document| {
        of.extend(only("queue"));
        let mut group = doc! {"_id": {"queue": "$queue", "state": state}, "n": {"$sum": 1}};
        group.extend(more);
        let counting = vec![doc! {"$match": of}, doc! {"$group": group}];
        doc! {"$unionWith": {"coll": db.name(Kept::Jobs), "pipeline": counting}}
    };
    let oldest = doc! {"oldest": {"$min": "$due"}};
    let due = doc! {"$lte": ["$due", db.now()]};
    // Each part counts the keys of an index that has no others.
    let pipeline = vec![
        doc! {"$match": only("_id")},
        doc! {"$project": {"_id": {"queue": "$_id"}, "deleted": {"$ifNull": ["$deleted", 0]}}},
        in_jobs(doc! {"state": WAITING}, doc! {"$cond": [due, "queued", "scheduled"]}.into(), oldest),
        in_jobs(doc! {"state": RUNNING, "lease_until": {"$gt": DateTime::MIN}}, "$state".into(), doc! {}),
        in_jobs(doc! {"finished_at": {"$gt": DateTime::MIN}}, "$state".into(), doc! {}),
    ];
    // All numbers are of one moment, so that they add up (clause S2).
    let queues = db.of(Kept::Queues);
    let reading = queues.aggregate(pipeline);
    let rows: Vec<Document> = if db.transactions {
        reading.read_concern(ReadConcern::snapshot()).await?.try_collect().await?
    } else {
        reading.await?.try_collect().await?
    };
    let mut counts: BTreeMap<QueueName, QueueCounts> = BTreeMap::new();
    for row in &rows {
        add(&mut counts, row);
    }
    for count in counts.values_mut() {
        // Every job that was ever taken in is still there or was deleted.
        count.enqueued = count.total() + count.deleted;
    }
    Ok(counts.into_values().collect())
}

fn add(counts: &mut BTreeMap<QueueName, QueueCounts>, row: &Document) -> Option<()> {
    let of = row.get_document("_id").ok()?;
    let queue = QueueName::new(of.get_str("queue").ok()?).ok()?;
    let count = counts.entry(queue.clone()).or_insert_with(|| QueueCounts::empty(queue));
    if let Ok(state) = of.get_str("state") {
        let state: State = state.parse().ok()?;
        *count.states.entry(state).or_default() += u64::try_from(record::whole(row.get("n"))?).ok()?;
        if state == State::Queued {
            count.oldest_due = Fields(row).moment("oldest").ok()?;
        }
    } else {
        count.deleted = u64::try_from(record::whole(row.get("deleted"))?).ok()?;
    }
    Some(())
}
