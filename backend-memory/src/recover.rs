use leasehold_core::Timestamp;
use leasehold_core::backend::{Answer, Expired, ExpiredLease, Recover};

use crate::schema::Tables;
use crate::settle;

pub(crate) fn expired(tables: &Tables, now: Timestamp, request: Expired) -> Vec<ExpiredLease> {
    let over = tables.leases.iter().take_while(|(until, _)| *until < now).take(request.limit);
    let lease = |&(_, slot): &(Timestamp, usize)| {
        let row = &tables.rows[slot];
        Some(ExpiredLease::new(&row.job, row.token?))
    };
    over.filter_map(lease).collect()
}

pub(crate) fn recover(tables: &mut Tables, now: Timestamp, request: Recover) -> Vec<Answer> {
    request.settlements.into_iter().map(|settlement| settle::apply(tables, now, settlement, true)).collect()
}
