//! Takes back jobs whose leases ran out: see `Backend::expired` and `Backend::recover`.

use leasehold_core::ClaimId;
use leasehold_core::backend::{Answer, Expired, ExpiredLease, Recover};
use uuid::Uuid;

use crate::claim::set_aside;
use crate::error::Done;
use crate::record::{self, Hash};
use crate::scripts::EXPIRED;
use crate::session::{Db, moment};
use crate::settle::{By, settle};

pub(crate) async fn expired(db: &Db, request: Expired) -> Done<Vec<ExpiredLease>> {
    let (now, jobs): (i64, Vec<(String, Hash)>) = db
        .run(&EXPIRED, |command| {
            command.arg(request.limit);
        })
        .await?;
    let (mut leases, mut bad) = (Vec::new(), Vec::new());
    for (id, hash) in jobs {
        let claim = record::claim(&hash);
        match (record::read(&id, &hash, moment(now)), claim) {
            (Ok(job), Some(claim)) => leases.push(ExpiredLease::new(&job, claim.token(job.id))),
            _ => bad.push((id, claim.unwrap_or(ClaimId::from_uuid(Uuid::nil())))),
        }
    }
    set_aside(db, &bad).await?;
    Ok(leases)
}

pub(crate) async fn recover(db: &Db, request: &Recover) -> Done<Vec<Answer>> {
    settle(db, &request.settlements, By::Recoverer).await
}
