//! Finds leases that ran out: see `Backend::expired`. They are taken back as attempts are settled.

use std::sync::LazyLock;

use leasehold_core::backend::{Expired, ExpiredLease};
use leasehold_core::{ClaimId, Timestamp};
use sqlx::Row;

use crate::claim::set_aside;
use crate::error::Done;
use crate::record;
use crate::session::{Session, rows};

static EXPIRED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM leasehold.expired($1, $2) AS j", record::OF_J.as_str()));

pub(crate) async fn expired(session: &mut Session<'_>, request: Expired) -> Done<Vec<ExpiredLease>> {
    let db = session.db;
    let found = db.query(&EXPIRED).bind(db.now()).bind(rows(request.limit)).fetch_all(session.conn()).await?;
    let (mut leases, mut bad) = (Vec::with_capacity(found.len()), Vec::new());
    for row in &found {
        let claim = ClaimId::from_uuid(row.try_get(record::CLAIM)?);
        match record::read(row, Timestamp::default()) {
            Ok(job) => {
                leases.push(ExpiredLease::new(&job, claim.token(job.id)));
            }
            Err(why) => bad.push((why, claim)),
        }
    }
    set_aside(session, &bad).await?;
    Ok(leases)
}
