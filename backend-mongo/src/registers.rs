//! Keeps registers: see `Backend::put_register`, `registers` and `delete_register`.

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{DeleteRegister, PutRegister, Register, RegisterPage, Registers, Space};
use leasehold_core::{Error, RegisterName, Timestamp, VersionId};
use mongodb::bson::{Bson, Document, doc};

use crate::error::{DUPLICATE, Done};
use crate::record::{self, Fields};
use crate::session::{Change, Db, Kept, date};

/// What a register is found by: those of a space are next to each other, in the order of their names.
fn key(space: Space, name: &str) -> String {
    format!("{space}:{name}")
}

/// The first key after all those of a space.
fn end(space: Space) -> String {
    format!("{space};")
}

pub(crate) async fn put_register(db: &Db, request: PutRegister) -> Done<()> {
    loop {
        let found = doc! {"$match": {"_id": key(request.space, request.name.as_str())}};
        let found = db.plain().read(Kept::Registers, vec![found]).await?;
        let there = found.first().map(|document| read(request.space, document)).transpose()?;
        if !request.replaces(there.map(|register| register.version))? {
            return Ok(());
        }
        if write(db, &request).await? {
            return Ok(());
        }
    }
}

/// Writes over the expected version; tells whether it was still that one.
async fn write(db: &Db, request: &PutRegister) -> Done<bool> {
    let at = |at: Option<Timestamp>| at.map_or(Bson::Null, date);
    let id = key(request.space, request.name.as_str());
    let fields = doc! {
        "body": record::bytes(&request.body), "next": at(request.next), "expires": at(request.expires),
        "version": record::uuid(request.version.as_uuid()),
    };
    let mut session = db.plain();
    let written = match request.expected {
        Some(expected) => {
            let filter = doc! {"_id": id, "version": record::uuid(expected.as_uuid())};
            session.update(Kept::Registers, vec![Change::one(filter, doc! {"$set": fields})]).await?
        }
        None => {
            let mut document = doc! {"_id": id};
            document.extend(fields);
            session.insert(Kept::Registers, vec![document]).await?
        }
    };
    if written.failed.iter().any(|(_, code, _)| *code == DUPLICATE) {
        return Ok(false);
    }
    Ok(written.whole()? > 0)
}

pub(crate) async fn registers(db: &Db, request: Registers) -> Done<RegisterPage> {
    let space = request.space;
    // Asked first, so that it is none later than that at which they are read.
    let hour = db.ask_hour().await?;
    let after = key(space, request.after.as_ref().map_or("", RegisterName::as_str));
    let mut filter = doc! {"_id": {"$gt": after, "$lt": end(space)}};
    if let Some(name) = &request.name {
        filter = doc! {"$and": [filter, {"_id": key(space, name.as_str())}]};
    }
    if request.due {
        filter.insert("next", doc! {"$type": "date"});
        filter.insert("$expr", doc! {"$lte": ["$next", db.now()]});
    }
    let pipeline = vec![
        doc! {"$match": filter},
        doc! {"$sort": {"_id": 1}},
        doc! {"$limit": at_most(request.limit.max(1))},
    ];
    let found = db.plain().read(Kept::Registers, pipeline).await?;
    let found = found.iter().take(request.limit);
    Ok(RegisterPage { hour, registers: found.map(|document| read(space, document)).collect::<Done<_>>()? })
}

fn read(space: Space, document: &Document) -> Done<Register> {
    let fields = Fields(document);
    let id = fields.text("_id").map_err(Error::corrupt)?.unwrap_or_default();
    let name = id.strip_prefix(&key(space, "")).unwrap_or_default();
    let version = fields
        .uuid("version")
        .map_err(Error::corrupt)?
        .ok_or_else(|| Error::corrupt("a register of no version"))?;
    Ok(Register {
        space,
        name: RegisterName::new(name)?,
        body: fields.bytes("body").map_err(Error::corrupt)?.unwrap_or_default(),
        next: fields.moment("next").map_err(Error::corrupt)?,
        expires: fields.moment("expires").map_err(Error::corrupt)?,
        version: VersionId::from_uuid(version),
    })
}

pub(crate) async fn delete_register(db: &Db, request: DeleteRegister) -> Done<bool> {
    let mut filter = doc! {"_id": key(request.space, request.name.as_str())};
    if let Some(expected) = request.expected {
        filter.insert("version", record::uuid(expected.as_uuid()));
    }
    Ok(db.plain().delete(Kept::Registers, filter).await? > 0)
}

/// Removes those that have expired, at most so many; answers how many, and whether there are more.
pub(crate) async fn prune(db: &Db, limit: usize) -> Done<(u64, bool)> {
    let over = doc! {"expires": {"$type": "date"}, "$expr": {"$lt": ["$expires", db.now()]}};
    let pipeline = vec![
        doc! {"$match": &over},
        doc! {"$limit": at_most(limit).saturating_add(1)},
        doc! {"$project": {"_id": 1}},
    ];
    let mut found = db.plain().read(Kept::Registers, pipeline).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let ids: Vec<_> = found.iter().filter_map(|document| document.get("_id").cloned()).collect();
    if ids.is_empty() {
        return Ok((0, more));
    }
    // Somebody may have written one since, and it lives on.
    let still = doc! {"$and": [{"_id": {"$in": ids}}, over]};
    Ok((db.plain().delete(Kept::Registers, still).await?, more))
}
