use leasehold_core::Timestamp;
use leasehold_core::backend::{Answer, Settle, Settlement};

use crate::record::Settled;
use crate::schema::Tables;

pub(crate) fn settle(tables: &mut Tables, now: Timestamp, request: Settle) -> Vec<Answer> {
    request.settlements.into_iter().map(|settlement| apply(tables, now, settlement, false)).collect()
}

/// Writes one settlement, of the holder or of a recoverer.
pub(crate) fn apply(tables: &mut Tables, now: Timestamp, settlement: Settlement, recovered: bool) -> Answer {
    let Some(slot) = tables.slot(settlement.job) else { return Answer::Lost };
    let row = &tables.rows[slot];
    let mark = Settled { token: settlement.token, verdict: settlement.verdict.name(), recovered };
    if !row.is_held_by(settlement.token) {
        return if row.settled == Some(mark) { Answer::AlreadyApplied } else { Answer::Lost };
    }
    if recovered && row.job.lease_until.is_some_and(|until| until >= now) {
        return Answer::Lost;
    }
    tables.leave(slot);
    let row = &mut tables.rows[slot];
    row.settled = Some(mark);
    if recovered {
        row.job.crashes += 1;
    }
    row.token = None;
    row.job.settle(settlement.verdict, settlement.failure, now);
    change_queue(tables, slot);
    tables.enter(slot, now);
    Answer::Applied
}

/// Counts a job that was sent to another queue out of the one and into the other.
fn change_queue(tables: &mut Tables, slot: usize) {
    let row = &tables.rows[slot];
    let from = row.queue;
    if row.job.queue == tables.queues[from].name {
        return;
    }
    let name = row.job.queue.clone();
    let to = tables.queue(&name);
    tables.queues[from].deleted += 1;
    tables.queues[to].enqueued += 1;
    tables.rows[slot].queue = to;
}
