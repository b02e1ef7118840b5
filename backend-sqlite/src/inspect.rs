//! Shows jobs and counts: see `Backend::find`, `list` and `counts`.

use std::collections::BTreeMap;

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts};
use leasehold_core::{Error, JobRecord, QueueName, State, Timestamp};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Row, Sqlite, SqliteConnection};

use crate::error::Done;
use crate::record::{self, SELECT};

/// How many jobs one call looks at to find those that match a filter. A page may be short for it, and says so.
const LOOK_AT: i64 = 20_000;

pub(crate) async fn find(
    conn: &mut SqliteConnection,
    request: Find,
    now: Timestamp,
) -> Done<Vec<Option<JobRecord>>> {
    let sql = format!("{SELECT} WHERE id IN (SELECT unhex(value) FROM json_each(?))");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(record::id_list(&request.ids)).fetch_all(conn).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let job = record::read(row, now).map_err(Error::from)?;
        found.insert(job.id, job);
    }
    Ok(request.ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub(crate) async fn list(conn: &mut SqliteConnection, request: List, now: Timestamp) -> Done<Page> {
    // The places and the jobs in them are of one moment.
    let mut conn = conn.begin().await?;
    let after = request.after.as_ref();
    let (places, next) =
        matching(&mut conn, &request.filter, request.order, after, request.limit, now).await?;
    let seqs: Vec<_> = places.iter().map(|place| place.seq).collect();
    let sql =
        format!("{SELECT} WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY {}", by(request.order));
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(record::list(&seqs)?).fetch_all(&mut *conn).await?;
    conn.commit().await?;
    let mut page = Page { next, ..Page::default() };
    for row in &rows {
        page.push(record::read(row, now));
    }
    Ok(page)
}

/// Where in a list a job stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) seq: i64,
    enqueued_at: i64,
    pub(crate) id: Vec<u8>,
}

/// The places of the first jobs after `after` that match, and where to go on.
///
/// It looks at no more than [`LOOK_AT`] jobs.
pub(crate) async fn matching(
    conn: &mut SqliteConnection,
    filter: &Filter,
    order: Order,
    after: Option<&Cursor>,
    limit: usize,
    now: Timestamp,
) -> Done<(Vec<Place>, Option<Cursor>)> {
    let after = after.map(|cursor| read_cursor(cursor, order)).transpose()?;
    let mut query = QueryBuilder::new("SELECT seq, enqueued_at, id FROM (");
    push_next(&mut query, "*", filter, order, after.clone());
    query.push(format!(" LIMIT {LOOK_AT}) AS j WHERE true"));
    push_filter(&mut query, filter, now)?;
    // Only one more shows that there is a next page.
    let one_more = at_most(limit).saturating_add(1);
    query.push(" LIMIT ").push_bind(one_more);
    let rows = query.build().fetch_all(&mut *conn).await?;
    let mut places = rows.iter().map(place).collect::<sqlx::Result<Vec<_>>>()?;
    let last = if places.len() > limit {
        places.truncate(limit);
        places.last().cloned()
    } else {
        let mut query = QueryBuilder::new("");
        push_next(&mut query, "seq, enqueued_at, id", filter, order, after);
        query.push(format!(" LIMIT 2 OFFSET {}", LOOK_AT - 1));
        // The last that was looked at, if there is another one behind it.
        let rows = query.build().fetch_all(conn).await?;
        if rows.len() == 2 { Some(place(&rows[0])?) } else { None }
    };
    Ok((places, last.map(|place| write_cursor(&place, order))))
}

fn place(row: &SqliteRow) -> sqlx::Result<Place> {
    Ok(Place { seq: row.try_get(0)?, enqueued_at: row.try_get(1)?, id: row.try_get(2)? })
}

/// Adds a query for the jobs after `after`, as far as their place alone tells that they match.
fn push_next(
    query: &mut QueryBuilder<Sqlite>,
    columns: &str,
    filter: &Filter,
    order: Order,
    after: Option<(i64, Vec<u8>)>,
) {
    // No id is as small as no bytes, so these two enclose whole milliseconds.
    let mut first = (filter.enqueued_from.map_or(i64::MIN, Timestamp::as_millis), Vec::new());
    let mut last =
        (filter.enqueued_until.map_or(i64::MAX, |until| until.as_millis().saturating_add(1)), Vec::new());
    match (order, after) {
        (Order::OldestFirst, Some(after)) => first = first.max(after),
        (Order::NewestFirst, Some(after)) => last = last.min(after),
        (_, None) => {}
    }
    query.push(format!("SELECT {columns} FROM leasehold_jobs INDEXED BY leasehold_jobs_listed "));
    query.push("WHERE (enqueued_at, id) > (").push_bind(first.0).push(", ").push_bind(first.1);
    query.push(") AND (enqueued_at, id) < (").push_bind(last.0).push(", ").push_bind(last.1);
    query.push(format!(") ORDER BY {}", by(order)));
}

fn by(order: Order) -> &'static str {
    match order {
        Order::NewestFirst => "enqueued_at DESC, id DESC",
        Order::OldestFirst => "enqueued_at, id",
    }
}

fn mark(order: Order) -> &'static str {
    match order {
        Order::NewestFirst => "n",
        Order::OldestFirst => "o",
    }
}

fn write_cursor(place: &Place, order: Order) -> Cursor {
    let id: String = place.id.iter().map(|byte| format!("{byte:02x}")).collect();
    Cursor(format!("{}{}.{id}", mark(order), place.enqueued_at))
}

fn read_cursor(cursor: &Cursor, order: Order) -> Done<(i64, Vec<u8>)> {
    let read = || {
        let (enqueued_at, id) = cursor.0.strip_prefix(mark(order))?.split_once('.')?;
        let byte = |at| u8::from_str_radix(id.get(at..at + 2)?, 16).ok();
        Some((enqueued_at.parse().ok()?, (0..id.len()).step_by(2).map(byte).collect::<Option<_>>()?))
    };
    read().ok_or_else(|| Error::invalid(format!("the cursor {:?} is not of this list", cursor.0)).into())
}

/// `Filter::matches` in SQL.
fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &Filter, now: Timestamp) -> Done<()> {
    push_any(query, "reason", filter.reasons.as_deref())?;
    if filter.queues.is_some() || filter.kinds.is_some() {
        query.push(" AND lane IN (SELECT lane FROM leasehold_lanes WHERE true");
        push_any(query, "queue", filter.queues.as_deref())?;
        push_any(query, "kind", filter.kinds.as_deref())?;
        query.push(")");
    }
    if let Some(states) = &filter.states {
        let states: Vec<_> = states.iter().map(|state| record::code(*state)).collect();
        query.push(" AND CASE WHEN state = 1 AND due <= ").push_bind(now.as_millis());
        query
            .push(" THEN 2 ELSE state END IN (SELECT value FROM json_each(")
            .push_bind(record::list(&states)?);
        query.push("))");
    }
    if let Some(tags) = &filter.tags {
        query.push(" AND NOT EXISTS (SELECT value FROM json_each(").push_bind(record::list(tags)?);
        query.push(
            ") EXCEPT SELECT value FROM json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END))",
        );
    }
    if let Some(worker) = filter.worker {
        query.push(" AND worker = ").push_bind(*worker.as_uuid());
    }
    if let Some(class) = &filter.error_class {
        query.push(" AND error_class = ").push_bind(class.clone());
    }
    if let Some(text) = filter.payload_contains.as_ref().filter(|text| !text.is_empty()) {
        query.push(" AND instr((SELECT payload FROM leasehold_payloads p WHERE p.seq = j.seq), ");
        query.push_bind(text.as_bytes().to_vec()).push(") > 0");
    }
    Ok(())
}

fn push_any<T: Serialize>(query: &mut QueryBuilder<Sqlite>, column: &str, wanted: Option<&[T]>) -> Done<()> {
    if let Some(wanted) = wanted {
        query.push(format!(" AND {column} IN (SELECT value FROM json_each("));
        query.push_bind(record::list(wanted)?).push("))");
    }
    Ok(())
}

pub(crate) async fn counts(
    conn: &mut SqliteConnection,
    request: Counts,
    now: Timestamp,
) -> Done<Vec<QueueCounts>> {
    let queues = request.queues.as_deref().map(record::list).transpose()?;
    // All numbers are of one moment, so that they add up (clause S2).
    let mut conn = conn.begin().await?;
    let mut counts = ByQueue::default();
    count_states(&mut conn, queues.as_deref(), now, &mut counts).await?;
    find_oldest(&mut conn, queues.as_deref(), now, &mut counts).await?;
    count_deleted(&mut conn, queues.as_deref(), &mut counts).await?;
    conn.commit().await?;
    for count in counts.0.values_mut() {
        // Every job that was ever taken in is still there or was deleted.
        count.enqueued = count.total() + count.deleted;
    }
    Ok(counts.0.into_values().collect())
}

#[derive(Default)]
struct ByQueue(BTreeMap<String, QueueCounts>);

impl ByQueue {
    /// The counts of a queue; none for a name that cannot be one.
    fn of(&mut self, queue: &str) -> Option<&mut QueueCounts> {
        if !self.0.contains_key(queue) {
            self.0.insert(queue.to_owned(), QueueCounts::empty(QueueName::new(queue).ok()?));
        }
        self.0.get_mut(queue)
    }
}

const COUNT_STATES: &str =
    "SELECT queue, sum(scheduled - due), sum(queued + due), sum(running), sum(succeeded), sum(failed),
             sum(cancelled)
         FROM (
             SELECT *, CASE WHEN scheduled > 0 THEN (
                 SELECT count(*) FROM leasehold_jobs AS j INDEXED BY leasehold_jobs_scheduled
                 WHERE j.lane = lanes.lane AND state = 1 AND j.due <= ?2) ELSE 0 END AS due
             FROM leasehold_lanes AS lanes WHERE ?1 IS NULL OR queue IN (SELECT value FROM json_each(?1)))
         GROUP BY queue";

/// From the lanes; jobs that were written as scheduled and have become due are counted as queued.
async fn count_states(
    conn: &mut SqliteConnection,
    queues: Option<&str>,
    now: Timestamp,
    counts: &mut ByQueue,
) -> Done<()> {
    let rows = sqlx::query(COUNT_STATES).bind(queues).bind(now.as_millis()).fetch_all(conn).await?;
    for row in rows {
        let Some(counts) = counts.of(row.try_get(0)?) else { continue };
        for (state, column) in State::ALL.into_iter().zip(1..) {
            let n = u64::try_from(row.try_get::<i64, usize>(column)?).unwrap_or(0);
            if n > 0 {
                counts.states.insert(state, n);
            }
        }
    }
    Ok(())
}

const FIND_OLDEST: &str =
    "SELECT queue, min((SELECT due FROM leasehold_jobs AS j INDEXED BY leasehold_jobs_waiting
             WHERE j.lane = lanes.lane AND j.state <= 2 AND due <= ?2 ORDER BY due LIMIT 1))
         FROM leasehold_lanes AS lanes
         WHERE scheduled + queued > 0 AND (?1 IS NULL OR queue IN (SELECT value FROM json_each(?1)))
         GROUP BY queue";

/// The due job that waits longest, by queue: one look per lane.
async fn find_oldest(
    conn: &mut SqliteConnection,
    queues: Option<&str>,
    now: Timestamp,
    counts: &mut ByQueue,
) -> Done<()> {
    let oldest: Vec<(String, Option<i64>)> =
        sqlx::query_as(FIND_OLDEST).bind(queues).bind(now.as_millis()).fetch_all(conn).await?;
    for (queue, due) in oldest {
        if let Some(counts) = counts.of(&queue) {
            counts.oldest_due = due.map(Timestamp::from_millis);
        }
    }
    Ok(())
}

async fn count_deleted(conn: &mut SqliteConnection, queues: Option<&str>, counts: &mut ByQueue) -> Done<()> {
    let deleted: Vec<(String, i64)> = sqlx::query_as(
        "SELECT queue, deleted FROM leasehold_queues
         WHERE ?1 IS NULL OR queue IN (SELECT value FROM json_each(?1))",
    )
    .bind(queues)
    .fetch_all(conn)
    .await?;
    for (queue, n) in deleted {
        if let Some(counts) = counts.of(&queue) {
            counts.deleted = u64::try_from(n).unwrap_or(0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::assert_indexed;

    #[tokio::test]
    async fn lists_and_counts_read_ranges_of_indexes() {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let mut query = QueryBuilder::new("");
            push_next(&mut query, "*", &Filter::default(), order, None);
            let plan = assert_indexed(query.sql().as_str()).await;
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
        for sql in [COUNT_STATES, FIND_OLDEST] {
            assert_indexed(sql).await;
        }
    }
}
