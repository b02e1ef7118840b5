//! Keeps schedules: see `Backend::put_schedule`, `schedules` and `delete_schedule`.

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{DeleteSchedule, PutSchedule, Schedule, Schedules};
use leasehold_core::{Error, ScheduleName, VersionId};
use mongodb::bson::{Bson, Document, doc};

use crate::error::{DUPLICATE, Done};
use crate::record::{self, Fields};
use crate::session::{Change, Db, Kept, date};

pub(crate) async fn put_schedule(db: &Db, request: PutSchedule) -> Done<()> {
    loop {
        let found = doc! {"$match": {"_id": request.name.as_str()}};
        let found = db.plain().read(Kept::Schedules, vec![found]).await?;
        let version = found.first().map(read).transpose()?.map(|found| found.version);
        if !request.replaces(version)? {
            return Ok(());
        }
        if write(db, &request).await? {
            return Ok(());
        }
    }
}

/// Writes over the expected version; tells whether it was still that one.
async fn write(db: &Db, request: &PutSchedule) -> Done<bool> {
    let next = request.next.map_or(Bson::Null, date);
    let version = record::uuid(request.version.as_uuid());
    let fields = doc! {"body": record::bytes(&request.body), "next": next, "version": version};
    let mut session = db.plain();
    let written = match request.expected {
        Some(expected) => {
            let filter = doc! {"_id": request.name.as_str(), "version": record::uuid(expected.as_uuid())};
            session.update(Kept::Schedules, vec![Change::one(filter, doc! {"$set": fields})]).await?
        }
        None => {
            let mut document = doc! {"_id": request.name.as_str()};
            document.extend(fields);
            session.insert(Kept::Schedules, vec![document]).await?
        }
    };
    if written.failed.iter().any(|(_, code, _)| *code == DUPLICATE) {
        return Ok(false);
    }
    Ok(written.whole()? > 0)
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
    let pipeline =
        vec![doc! {"$match": filter}, doc! {"$sort": {"_id": 1}}, doc! {"$limit": at_most(request.limit)}];
    db.plain().read(Kept::Schedules, pipeline).await?.iter().map(read).collect()
}

fn read(document: &Document) -> Done<Schedule> {
    let fields = Fields(document);
    let name = fields.text("_id").map_err(Error::corrupt)?.unwrap_or_default();
    let version = fields
        .uuid("version")
        .map_err(Error::corrupt)?
        .ok_or_else(|| Error::corrupt("a schedule of no version"))?;
    Ok(Schedule {
        name: ScheduleName::new(name)?,
        body: fields.bytes("body").map_err(Error::corrupt)?.unwrap_or_default(),
        next: fields.moment("next").map_err(Error::corrupt)?,
        version: VersionId::from_uuid(version),
    })
}

pub(crate) async fn delete_schedule(db: &Db, request: DeleteSchedule) -> Done<bool> {
    Ok(db.plain().delete(Kept::Schedules, doc! {"_id": request.name.as_str()}).await? > 0)
}
