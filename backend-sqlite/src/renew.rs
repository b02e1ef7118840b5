//! Extends leases: see `Backend::renew`.

use std::collections::HashMap;

use leasehold_core::Timestamp;
use leasehold_core::backend::{Renew, Renewal, Renewed};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::error::Done;
use crate::record;
use crate::writer::Session;

/// Names a lease as the store keeps it: by job and claim.
type Lease = (Uuid, Uuid);

fn lease(renewal: &Renewal) -> Lease {
    (*renewal.job.as_uuid(), *renewal.token.claim(renewal.job).as_uuid())
}

pub(crate) async fn renew(session: &mut Session, request: Renew) -> Done<Vec<Renewed>> {
    let wanted = one_per_lease(&request.renewals);
    let mut renewed: HashMap<Lease, Renewed> = HashMap::with_capacity(wanted.len());
    for chunk in record::chunks(wanted.len()) {
        renewed.extend(renew_some(session, &wanted[chunk]).await?);
    }
    let answer = |renewal| renewed.get(&lease(renewal)).copied().unwrap_or(Renewed::Lost);
    Ok(request.renewals.iter().map(answer).collect())
}

/// Joins renewals of the same lease, since one statement changes a row once.
fn one_per_lease(renewals: &[Renewal]) -> Vec<Renewal> {
    let mut joined: HashMap<Lease, Renewal> = HashMap::with_capacity(renewals.len());
    for renewal in renewals {
        let joined = joined.entry(lease(renewal)).or_insert_with(|| renewal.clone());
        joined.lease = joined.lease.max(renewal.lease);
        if renewal.progress.is_some() {
            joined.progress.clone_from(&renewal.progress);
        }
    }
    joined.into_values().collect()
}

/// Renews what is held.
async fn renew_some(session: &mut Session, renewals: &[Renewal]) -> Done<Vec<(Lease, Renewed)>> {
    let sql = format!(
        "UPDATE leasehold_jobs
         SET lease_until = max(lease_until, v.column3), progress = coalesce(v.column4, progress)
         FROM (VALUES {}) AS v WHERE id = v.column1 AND claim = v.column2 AND state = 3
         RETURNING id, claim, lease_until, cancel_requested",
        record::places(renewals.len(), 4)
    );
    let mut query = sqlx::query_as(AssertSqlSafe(sql));
    for renewal in renewals {
        let (job, claim) = lease(renewal);
        query = query
            .bind(job)
            .bind(claim)
            .bind(session.now.plus(renewal.lease).as_millis())
            .bind(renewal.progress.as_ref().map(serde_json::to_string).transpose()?);
    }
    let rows: Vec<(Uuid, Uuid, i64, bool)> = query.fetch_all(&mut session.conn).await?;
    let held = |(job, claim, until, cancel_requested)| {
        ((job, claim), Renewed::Held { until: Timestamp::from_millis(until), cancel_requested })
    };
    Ok(rows.into_iter().map(held).collect())
}
