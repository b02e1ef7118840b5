//! Gives the holder of a unique key what a newcomer brings (clause P4): see `Backend::enqueue`.

use leasehold_core::backend::{EnqueueAnswer, Enqueued};
use leasehold_core::{JobId, NewJob, Reason, Timestamp, limits};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::enqueue::{self, holders};
use crate::error::Done;
use crate::record::{self, Brief};

/// Whether a job can be taken in, or kept out, without a look at the holder of its key.
pub(crate) fn is_plain(job: &NewJob) -> bool {
    job.on_conflict().is_keep()
}

/// What became of a newcomer whose key another job holds, or that replaced one before; none if it may come in.
pub(crate) async fn replace(
    conn: &mut SqliteConnection,
    new: &NewJob,
    now: Timestamp,
) -> Done<Option<Enqueued>> {
    let known: Option<(Option<Uuid>,)> = sqlx::query_as(
        "SELECT NULL FROM leasehold_jobs WHERE id = ?1
         UNION ALL SELECT id FROM leasehold_replaced JOIN leasehold_jobs USING (seq) WHERE newcomer = ?1 LIMIT 1",
    )
    .bind(*new.id.as_uuid())
    .fetch_optional(&mut *conn)
    .await?;
    if let Some((replaced,)) = known {
        let job = replaced.map(JobId::from_uuid);
        let answer = job.map_or(EnqueueAnswer::Existing, |_| EnqueueAnswer::Replaced);
        return Ok(Some(Enqueued { job: job.unwrap_or(new.id), answer }));
    }
    let Some(unique) = &new.options.unique else { return Ok(None) };
    let Some(holder) = holders(conn, &[&unique.key]).await?.remove(&unique.key) else { return Ok(None) };
    let held = Enqueued { job: holder, answer: EnqueueAnswer::Held };
    let Some(mut job) = record::load(conn, [&holder]).await?.remove(&holder) else { return Ok(Some(held)) };
    if !job.state_at(now).is_waiting() || job.kind != new.kind.as_str() {
        return Ok(Some(held));
    }
    let since = Timestamp::from_millis(job.enqueued_at);
    job.wait(new.on_conflict().due(new.due.by(now), since), Reason::Replaced, now);
    job.priority = new.options.priority;
    job.progress = None;
    write(conn, &mut job, new).await?;
    Ok(Some(Enqueued { job: holder, answer: EnqueueAnswer::Replaced }))
}

async fn write(conn: &mut SqliteConnection, job: &mut Brief, new: &NewJob) -> Done<()> {
    if let Ok(lane) = record::Lane::new(&job.queue, job.priority, &job.kind) {
        let lanes = record::lanes(conn, &std::iter::once(lane.clone()).collect()).await?;
        job.lane = lanes.get(&lane).copied().unwrap_or(job.lane);
    }
    record::save(conn, &[job]).await?;
    enqueue::replace_payload(conn, job.seq, &new.payload).await?;
    sqlx::query(
        "INSERT INTO leasehold_replaced
         SELECT ?1, ?2, 1 + coalesce((SELECT max(n) FROM leasehold_replaced WHERE seq = ?2), 0);
         DELETE FROM leasehold_replaced
         WHERE seq = ?2 AND n <= (SELECT max(n) FROM leasehold_replaced WHERE seq = ?2) - ?3",
    )
    .bind(*new.id.as_uuid())
    .bind(job.seq)
    .bind(i64::try_from(limits::REPLACEMENTS).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(())
}
