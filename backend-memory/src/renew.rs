use leasehold_core::Timestamp;
use leasehold_core::backend::{Renew, Renewal, Renewed};

use crate::schema::Tables;

pub(crate) fn renew(tables: &mut Tables, now: Timestamp, request: Renew) -> Vec<Renewed> {
    request.renewals.into_iter().map(|renewal| one(tables, now, renewal)).collect()
}

fn one(tables: &mut Tables, now: Timestamp, renewal: Renewal) -> Renewed {
    let Some(slot) = tables.held(renewal.job, renewal.token) else { return Renewed::Lost };
    let row = &mut tables.rows[slot];
    let before = row.job.lease_until.unwrap_or(now);
    let until = before.max(now.plus(renewal.lease));
    row.job.lease_until = Some(until);
    if let Some(progress) = renewal.progress {
        row.job.progress = Some(progress);
    }
    let cancel_requested = row.job.cancel_requested;
    tables.leases.remove(&(before, slot));
    tables.leases.insert((until, slot));
    Renewed::Held { until, cancel_requested }
}
