use leasehold_core::backend::{Answer, Settle, Settlement, Verdict};
use leasehold_core::{Reason, State, Timestamp};

use crate::record::{Row, Settled};
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
    if let Some(failure) = settlement.failure {
        row.remember(failure, now);
    }
    write(row, settlement.verdict, now);
    tables.enter(slot, now);
    Answer::Applied
}

fn write(row: &mut Row, verdict: Verdict, now: Timestamp) {
    match verdict {
        Verdict::Succeed { result } => {
            row.job.result = result;
            row.end(State::Succeeded, None, now);
        }
        Verdict::Fail { reason } => row.end(State::Failed, Some(reason), now),
        Verdict::Cancel { reason } => row.end(State::Cancelled, Some(reason), now),
        Verdict::Retry { .. } | Verdict::Release { .. } if row.job.cancel_requested => {
            row.end(State::Cancelled, Some(Reason::Cancelled), now);
        }
        // A policy does not ask for this; if one does, the job must not wait for a claim that never takes it.
        Verdict::Retry { .. } if row.job.attempt >= row.job.options.max_attempts => {
            row.end(State::Failed, Some(Reason::MaxAttempts), now);
        }
        Verdict::Retry { reason, delay } => row.wait(now.plus(delay), Some(reason), now),
        Verdict::Release { reason, delay } => {
            row.job.attempt -= 1;
            let due = if delay.is_zero() { row.job.due } else { now.plus(delay) };
            row.wait(due, Some(reason), now);
        }
    }
}
