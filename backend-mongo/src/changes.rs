//! Hears from a change stream what happens to jobs and queues, for those who prefer that to signals.

use std::sync::{Arc, PoisonError};

use futures::StreamExt;
use leasehold_core::backend::Event;
use mongodb::bson::{Document, doc};
use mongodb::change_stream::event::ChangeStreamEvent;
use mongodb::options::FullDocumentType;

use crate::error::Done;
use crate::session::{Db, Kept};
use crate::tail::{Feed, What};
use crate::watch;

/// Opens the stream, and says whether it goes on where the last one ended.
pub(crate) async fn open(db: &Db) -> Done<(Feed, bool)> {
    let token = &db.tail(What::Changes).token;
    let known = token.lock().unwrap_or_else(PoisonError::into_inner).take();
    let watch = || {
        let watch = db.database.watch().pipeline(wanted(db));
        watch.full_document(FullDocumentType::UpdateLookup).batch_size(1_000)
    };
    let resumed = match known {
        // A token that is too old is refused.
        Some(token) => watch().start_after(token).await.ok(),
        None => None,
    };
    let (stream, whole) = match resumed {
        Some(stream) => (stream, true),
        None => (watch().await?, false),
    };
    let (token, jobs) = (Arc::clone(token), db.name(Kept::Jobs));
    let feed = stream.map(move |change| {
        let change = change?;
        let events = told(&change, &jobs);
        *token.lock().unwrap_or_else(PoisonError::into_inner) = Some(change.id);
        Ok(events)
    });
    Ok((feed.boxed(), whole))
}

/// What is of use: jobs that come or change their state, and settings of queues. Renewed leases, counts and logs are
/// left on the server, as is all that a job carries.
fn wanted(db: &Db) -> Vec<Document> {
    let updated = |field: &str| doc! {format!("updateDescription.updatedFields.{field}"): {"$exists": true}};
    let jobs = doc! {
        "ns.coll": db.name(Kept::Jobs),
        "$or": [
            {"operationType": {"$in": ["insert", "replace"]}},
            updated("state"), updated("due"), updated("queue"), updated("cancel_requested"),
        ],
    };
    let queues = doc! {
        "ns.coll": db.name(Kept::Queues),
        "$or": [{"operationType": {"$in": ["insert", "replace"]}}, updated("settings"), updated("changed_at")],
    };
    let mut shown = doc! {
        "_id": 1, "operationType": 1, "ns": 1, "documentKey": 1, "clusterTime": 1, "fullDocument._id": 1,
    };
    for field in ["queue", "state", "due", "cancel_requested"] {
        shown.insert(format!("fullDocument.{field}"), 1);
    }
    vec![doc! {"$match": {"$or": [jobs, queues]}}, doc! {"$project": shown}]
}

fn told(change: &ChangeStreamEvent<Document>, jobs: &str) -> Vec<Event> {
    // To the second, of which the end is meant: nothing that is due is called scheduled.
    let now = change.cluster_time.map_or(i64::MAX, |time| (i64::from(time.time) + 1) * 1_000);
    let of_jobs = change.ns.as_ref().and_then(|ns| ns.coll.as_deref()) == Some(jobs);
    let key = change.document_key.as_ref().and_then(|key| key.get_str("_id").ok());
    let told = match (&change.full_document, key) {
        (Some(job), _) if of_jobs => watch::told_of(job, now),
        (_, Some(queue)) if !of_jobs => vec![doc! {"queue_set": queue}, doc! {"waiting": queue}],
        _ => Vec::new(),
    };
    told.iter().filter_map(watch::event).collect()
}
