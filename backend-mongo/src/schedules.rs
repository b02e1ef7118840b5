//! Keeps schedules: see `Backend::put_schedule`, `schedules` and `delete_schedule`.

use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Error, ErrorKind, ScheduleName};
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;

use crate::error::{DUPLICATE, Done};
use crate::record::{self, Fields, corrupt};
use crate::session::{Change, Db, Kept, date};

pub(crate) async fn put_schedule(db: &Db, request: PutSchedule) -> Done<u64> {
    loop {
        let filter = doc! {"$match": {"_id": request.name.as_str()}};
        let found = db.plain().read(Kept::Schedules, vec![filter]).await?;
        let found = found.first().map(read).transpose()?;
        let version = found.as_ref().map(|found| found.version);
        let same = found.is_some_and(|found| found.body == request.body && found.next == request.next);
        if let Some(version) = version.filter(|_| same && version != request.expected) {
            return Ok(version);
        }
        if version != request.expected {
            return Err(conflict(&request, version).into());
        }
        if let Some(version) = write(db, &request).await? {
            return Ok(version);
        }
    }
}

fn conflict(request: &PutSchedule, found: Option<u64>) -> Error {
    let shown = |version: Option<u64>| version.map_or_else(|| "none".into(), |version| version.to_string());
    let (name, found, expected) = (&request.name, shown(found), shown(request.expected));
    let why = format!("the schedule {name:?} has version {found}, not {expected}: read it and decide anew");
    Error::new(ErrorKind::Conflict, why)
}

/// Writes over the expected version; none if it was another one by then.
async fn write(db: &Db, request: &PutSchedule) -> Done<Option<u64>> {
    // Of all schedules, so that one which was removed and made anew does not get a version it had before.
    let version = next(db, "schedule_version", 1).await?;
    let next = request.next.map_or(Bson::Null, date);
    let fields = doc! {"body": record::bytes(&request.body), "next": next, "version": version};
    let mut session = db.plain();
    let written = match request.expected {
        Some(expected) => {
            let filter = doc! {"_id": request.name.as_str(), "version": expected.cast_signed()};
            session.update(Kept::Schedules, vec![Change::one(filter, doc! {"$set": fields})]).await?
        }
        None => {
            let mut document = doc! {"_id": request.name.as_str()};
            document.extend(fields);
            session.insert(Kept::Schedules, vec![document]).await?
        }
    };
    if written.failed.iter().any(|(_, code, _)| *code == DUPLICATE) {
        return Ok(None);
    }
    Ok((written.whole()? > 0).then_some(version.cast_unsigned()))
}

/// Takes so many numbers from a counter and tells the last of them.
pub(crate) async fn next(db: &Db, counter: &str, n: i64) -> Done<i64> {
    let counted = db
        .of(Kept::Meta)
        .find_one_and_update(doc! {"_id": counter}, doc! {"$inc": {"value": n}})
        .upsert(true)
        .return_document(ReturnDocument::After)
        .await?;
    let value = counted.as_ref().and_then(|counted| record::whole(counted.get("value")));
    Ok(value.ok_or_else(|| corrupt(format!("the counter {counter:?} is no number")))?)
}

pub(crate) async fn schedules(db: &Db, request: Schedules) -> Done<Vec<Schedule>> {
    if request.limit == 0 {
        return Ok(Vec::new());
    }
    let mut filter = doc! {"_id": {"$gt": request.after.as_ref().map_or("", ScheduleName::as_str)}};
    if request.due {
        filter.insert("next", doc! {"$type": "date"});
        filter.insert("$expr", doc! {"$lte": ["$next", db.now()]});
    }
    let pipeline = vec![
        doc! {"$match": filter},
        doc! {"$sort": {"_id": 1}},
        doc! {"$limit": i64::try_from(request.limit).unwrap_or(i64::MAX)},
    ];
    db.plain().read(Kept::Schedules, pipeline).await?.iter().map(read).collect()
}

fn read(document: &Document) -> Done<Schedule> {
    let fields = Fields(document);
    let name = fields.text("_id").map_err(corrupt)?.unwrap_or_default();
    let version: i64 = fields.number("version").map_err(corrupt)?;
    Ok(Schedule {
        name: ScheduleName::new(name)?,
        body: fields.bytes("body").map_err(corrupt)?.unwrap_or_default(),
        next: fields.moment("next").map_err(corrupt)?,
        version: version.cast_unsigned(),
    })
}

pub(crate) async fn delete_schedule(db: &Db, request: DeleteSchedule) -> Done<bool> {
    Ok(db.plain().delete(Kept::Schedules, doc! {"_id": request.name.as_str()}).await? > 0)
}
