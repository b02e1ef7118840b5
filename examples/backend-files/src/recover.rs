use leasehold_core::backend::{Answer, Expired, ExpiredLease, Recover};
use leasehold_core::{Result, Timestamp};

use crate::schema::{By, START, Tables};
use crate::settle;

pub(crate) fn expired(tables: &mut Tables, now: Timestamp, request: Expired) -> Result<Vec<ExpiredLease>> {
    // A deadline of exactly now is not past (clause C8).
    let over = tables.between(By::Lease(START), By::Lease(now)).map(|(_, row)| row);
    let over = over.filter(|row| row.job.lease_until.is_some_and(|until| until < now));
    let leases = over.filter_map(|row| Some(ExpiredLease::new(&row.job, row.token?)));
    Ok(leases.take(request.limit).collect())
}

pub(crate) fn recover(tables: &mut Tables, now: Timestamp, request: Recover) -> Result<Vec<Answer>> {
    let one = |settlement| settle::apply(tables, now, settlement, true);
    Ok(request.settlements.into_iter().map(one).collect())
}
