//! Gives the holder of a unique key what a newcomer brings (clause P4): see `Backend::enqueue`.

use leasehold_core::backend::{EnqueueAnswer, Enqueued, Event};
use leasehold_core::{JobId, NewJob, OnConflict, QueueName, Timestamp, limits};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::enqueue::{delay, moment};
use crate::error::Done;
use crate::record;
use crate::session::{Db, millis, rows};

const REPLACE: &str =
    "SELECT at, holder, replaced, queue, due FROM leasehold.replace($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Whether a job can be taken in, or kept out, without a look at the holder of its key.
pub(crate) fn is_plain(job: &NewJob) -> bool {
    job.on_conflict().is_keep()
}

/// What became of a newcomer whose key another job holds, or that replaced one before, and what is to be told of it; none
/// if it may come in.
pub(crate) async fn replace(
    db: &Db,
    conn: &mut PgConnection,
    new: &NewJob,
) -> Done<Option<(Enqueued, Vec<Event>)>> {
    let at_most = match new.on_conflict() {
        OnConflict::Debounce { at_most } => Some(millis(at_most)),
        _ => None,
    };
    let row = db
        .query(REPLACE)
        .bind(db.now())
        .bind(*new.id.as_uuid())
        .bind(new.kind.as_str().to_owned())
        .bind(new.payload.as_bytes().to_vec())
        .bind(record::rank(new.options.priority))
        .bind(delay(new.due))
        .bind(moment(new.due))
        .bind(new.options.unique.as_ref().map(|unique| unique.key.as_str().to_owned()))
        .bind(at_most)
        .bind(rows(limits::REPLACEMENTS))
        .fetch_one(conn)
        .await?;
    let Some(holder) = row.try_get::<Option<Uuid>, _>(1)?.map(JobId::from_uuid) else { return Ok(None) };
    if !row.try_get(2)? {
        let answer = if holder == new.id { EnqueueAnswer::Existing } else { EnqueueAnswer::Held };
        return Ok(Some((Enqueued { job: holder, answer }, Vec::new())));
    }
    let told = Enqueued { job: holder, answer: EnqueueAnswer::Replaced };
    let Ok(queue) = QueueName::new(row.try_get::<&str, _>(3)?) else { return Ok(Some((told, Vec::new()))) };
    let (now, due): (i64, i64) = (row.try_get(0)?, row.try_get(4)?);
    let state = record::waiting(Timestamp::from_millis(due), Timestamp::from_millis(now));
    let waits = Event::Waiting { queue: queue.clone() };
    Ok(Some((told, vec![waits, Event::Changed { job: holder, queue, state }])))
}
