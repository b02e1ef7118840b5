use leasehold_core::backend::{Answer, Settle, Settlement};
use leasehold_core::{Result, Timestamp};

use crate::schema::Tables;

pub(crate) fn settle(tables: &mut Tables, now: Timestamp, request: Settle) -> Result<Vec<Answer>> {
    Ok(request.settlements.into_iter().map(|settlement| apply(tables, now, settlement, false)).collect())
}

/// Writes one settlement, of the holder or of a recoverer.
pub(crate) fn apply(tables: &mut Tables, now: Timestamp, settlement: Settlement, recovered: bool) -> Answer {
    let Settlement { job, token, verdict, failure } = settlement;
    let Some(row) = tables.jobs.get(&job) else { return Answer::Lost };
    let mark = (token, verdict.name().to_owned(), recovered);
    if row.token != Some(token) {
        return if row.settled == Some(mark) { Answer::AlreadyApplied } else { Answer::Lost };
    }
    if recovered && row.job.lease_until.is_some_and(|until| until >= now) {
        return Answer::Lost;
    }
    let mut row = row.clone();
    (row.token, row.settled) = (None, Some(mark));
    row.job.crashes += u32::from(recovered);
    row.job.settle(verdict, failure, now);
    tables.put(row);
    Answer::Applied
}
