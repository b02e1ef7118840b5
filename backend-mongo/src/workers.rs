//! Keeps the registry of workers: see `Backend::check_in`, `workers` and `stop_workers`.

use std::time::Duration;

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{CheckIn, CheckedIn, StopWorkers, WorkerRecord, Workers};
use leasehold_core::{Error, WorkerId};
use mongodb::bson::{Document, doc};
use mongodb::options::ReturnDocument;

use crate::error::Done;
use crate::record::{self, Fields, with_now};
use crate::session::{Change, Db, Kept, millis};

pub(crate) async fn check_in(db: &Db, request: CheckIn) -> Done<CheckedIn> {
    let fields = doc! {
        "info": {"$literal": serde_json::to_string(&request.info)?},
        "host": {"$literal": &request.info.host},
        "started_at": {"$ifNull": ["$started_at", db.now()]},
        "seen_at": db.now(),
        "lost_after_ms": millis(request.lost_after),
        "left": request.leaving,
        "stop": {"$ifNull": ["$stop", false]},
    };
    let worker = db
        .of(Kept::Workers)
        .find_one_and_update(
            doc! {"_id": record::uuid(request.worker.as_uuid())},
            vec![doc! {"$set": fields}],
        )
        .upsert(true)
        .return_document(ReturnDocument::After)
        .await?;
    Ok(CheckedIn { stop: worker.is_some_and(|worker| worker.get_bool("stop").unwrap_or(false)) })
}

pub(crate) async fn workers(db: &Db, request: Workers) -> Done<Vec<WorkerRecord>> {
    if request.limit == 0 {
        return Ok(Vec::new());
    }
    let mut pipeline = Vec::new();
    pipeline.extend(request.after.map(|id| doc! {"$match": {"_id": {"$lt": record::uuid(id.as_uuid())}}}));
    pipeline.push(doc! {"$sort": {"_id": -1}});
    pipeline.push(doc! {"$limit": at_most(request.limit)});
    pipeline.push(with_now(db));
    db.plain().read(Kept::Workers, pipeline).await?.iter().map(read).collect()
}

fn read(document: &Document) -> Done<WorkerRecord> {
    let fields = Fields(document);
    let moment = |name| {
        fields.moment(name).map_err(Error::corrupt)?.ok_or_else(|| Error::corrupt(format!("no {name}")))
    };
    let id = fields.uuid("_id").map_err(Error::corrupt)?.ok_or_else(|| Error::corrupt("no id"))?;
    let info = fields.text("info").map_err(Error::corrupt)?.unwrap_or_default();
    let info = serde_json::from_str(info).map_err(Error::corrupt)?;
    let mut worker = WorkerRecord::new(WorkerId::from_uuid(id), info, moment("started_at")?);
    worker.seen_at = moment("seen_at")?;
    worker.left = fields.flag("left").map_err(Error::corrupt)?;
    let lost_after = Duration::from_millis(fields.number("lost_after_ms").map_err(Error::corrupt)?);
    worker.look(lost_after, moment("now")?);
    worker.stop_requested = fields.flag("stop").map_err(Error::corrupt)?;
    Ok(worker)
}

pub(crate) async fn stop_workers(db: &Db, request: StopWorkers) -> Done<u64> {
    let mut filter = doc! {"left": false};
    match request {
        StopWorkers::One(worker) => drop(filter.insert("_id", record::uuid(worker.as_uuid()))),
        StopWorkers::Host(host) => drop(filter.insert("host", doc! {"$eq": host})),
        StopWorkers::All => {}
    }
    let change = Change::many(filter, doc! {"$set": {"stop": true}});
    db.plain().update(Kept::Workers, vec![change]).await?.whole()
}
