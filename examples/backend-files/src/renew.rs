use leasehold_core::backend::{Renew, Renewal, Renewed};
use leasehold_core::{Result, Timestamp};

use crate::schema::Tables;

pub(crate) fn renew(tables: &mut Tables, now: Timestamp, request: Renew) -> Result<Vec<Renewed>> {
    Ok(request.renewals.into_iter().map(|renewal| one(tables, now, renewal)).collect())
}

fn one(tables: &mut Tables, now: Timestamp, renewal: Renewal) -> Renewed {
    let Some(mut row) = tables.held(renewal.job, renewal.token).cloned() else { return Renewed::Lost };
    let asked = now.plus(renewal.lease);
    let until = row.job.lease_until.map_or(asked, |before| before.max(asked));
    row.job.lease_until = Some(until);
    if let Some(progress) = renewal.progress {
        row.job.progress = Some(progress);
    }
    let cancel_requested = row.job.cancel_requested;
    tables.put(row);
    Renewed::Held { until, cancel_requested }
}
