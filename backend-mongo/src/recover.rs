//! Takes back jobs whose leases ran out: see `Backend::expired` and `Backend::recover`.

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{Answer, Expired, ExpiredLease, Recover, SetAside};
use leasehold_core::{ClaimId, Payload};
use mongodb::bson::doc;

use crate::error::Done;
use crate::record::{self, RUNNING, with_now};
use crate::session::{Db, Kept};
use crate::settle::{By, settle};

pub(crate) async fn expired(db: &Db, request: Expired) -> Done<Vec<ExpiredLease>> {
    if request.limit == 0 {
        return Ok(Vec::new());
    }
    let pipeline = vec![
        doc! {"$match": {"state": RUNNING, "$expr": {"$lt": ["$lease_until", db.now()]}}},
        doc! {"$sort": {"lease_until": 1, "_id": 1}},
        doc! {"$limit": at_most(request.limit)},
        doc! {"$unset": ["payload", "result"]},
        doc! {"$set": {"payload": record::bytes(&Payload::default())}},
        with_now(db),
    ];
    let (mut leases, mut bad) = (Vec::new(), Vec::new());
    for document in db.plain().read(Kept::Jobs, pipeline).await? {
        let claim = document.get("claim").and_then(record::as_uuid);
        let why = |why: &str| SetAside { job: record::id(&document), why: why.into() };
        let claim = claim.map(ClaimId::from_uuid).ok_or_else(|| why("it runs under no claim"));
        match record::read(&document).and_then(|job| Ok(ExpiredLease::new(&job, claim?.token(job.id)))) {
            Ok(lease) => leases.push(lease),
            Err(why) => bad.extend(document.get("_id").map(|id| (id.clone(), why))),
        }
    }
    record::set_aside(db, &bad).await?;
    Ok(leases)
}

pub(crate) async fn recover(db: &Db, request: &Recover) -> Done<Vec<Answer>> {
    settle(db, &request.settlements, By::Recoverer).await
}
