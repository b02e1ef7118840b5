//! Finds leases that ran out: see `Backend::expired`. They are taken back as attempts are settled.

use std::sync::LazyLock;
use std::time::Duration;

use leasehold_core::backend::{Expired, ExpiredLease};
use leasehold_core::{ClaimId, Deadline, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use crate::claim::set_aside;
use crate::error::Done;
use crate::record;
use crate::session::{Session, rows};

static EXPIRED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM leasehold.expired($1, $2) AS j", record::OF_J.as_str()));

/// What one look may take, which ends after two seconds.
const LOOK: Duration = Duration::from_secs(3);

pub(crate) async fn expired(
    session: &mut Session<'_>,
    request: Expired,
    deadline: Deadline,
) -> Done<Vec<ExpiredLease>> {
    let db = session.db;
    let found = loop {
        let look = db.query(&EXPIRED).bind(db.now()).bind(rows(request.limit));
        let found = look.fetch_all(session.conn()).await?;
        let is_over = match found.first() {
            Some(first) => first.try_get::<Option<Uuid>, _>(0)?.is_some(),
            None => true,
        };
        if is_over {
            break found;
        }
        // What is left is for the next call.
        if deadline.left() < LOOK {
            return Ok(Vec::new());
        }
    };
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
