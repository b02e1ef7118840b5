//! Shows jobs and counts: see `Backend::find`, `list` and `counts`.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use leasehold_core::backend::{Age, Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts};
use leasehold_core::{Error, ErrorKind, JobId, JobRecord, QueueName, State, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row};

use crate::error::Done;
use crate::record;
use crate::session::{Db, Session, count, rows};

/// How many jobs one call looks at to find those that match a filter. A page may be short for it, and says so.
const LOOK_AT: i64 = 20_000;
/// The hour, as the last column after those of a job.
const HOUR: &str = "coalesce($1, leasehold.hour())";

static FIND: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {}, {HOUR} FROM leasehold.jobs AS j WHERE id = ANY ($2)", record::OF_J.as_str())
});

pub(crate) async fn find(session: &mut Session<'_>, request: &Find) -> Done<Vec<Option<JobRecord>>> {
    let db = session.db;
    let ids: Vec<_> = request.ids.iter().map(|id| *id.as_uuid()).collect();
    let mut found = HashMap::new();
    for row in &db.query(&FIND).bind(db.now()).bind(ids).fetch_all(session.conn()).await? {
        let job = record::read(row, hour(row)?).map_err(|bad| Error::new(ErrorKind::Corrupt, bad.why))?;
        found.insert(job.id, job);
    }
    Ok(request.ids.iter().map(|id| found.get(id).cloned()).collect())
}

fn hour(row: &PgRow) -> Done<Timestamp> {
    Ok(Timestamp::from_millis(row.try_get(record::CLAIM + 1)?))
}

pub(crate) async fn list(session: &mut Session<'_>, request: &List) -> Done<Page> {
    let (found, next) =
        matching(session, &request.filter, request.order, request.after.as_ref(), request.limit).await?;
    let mut page = Page { next, ..Page::default() };
    for row in &found {
        match record::read(row, hour(row)?) {
            Ok(job) => page.jobs.push(job),
            Err(bad) => page.unreadable.push(bad),
        }
    }
    Ok(page)
}

/// The ids of the first jobs after `after` that match, and where to go on.
pub(crate) async fn matching_ids(
    session: &mut Session<'_>,
    filter: &Filter,
    order: Order,
    after: Option<&Cursor>,
    limit: usize,
) -> Done<(Vec<JobId>, Option<Cursor>)> {
    let (found, next) = matching(session, filter, order, after, limit).await?;
    let ids = found.iter().map(|row| Ok(JobId::from_uuid(row.try_get(0)?)));
    Ok((ids.collect::<sqlx::Result<_>>()?, next))
}

/// The first jobs after `after` that match, and where to go on. It looks at no more than [`LOOK_AT`] jobs.
async fn matching(
    session: &mut Session<'_>,
    filter: &Filter,
    order: Order,
    after: Option<&Cursor>,
    limit: usize,
) -> Done<(Vec<PgRow>, Option<Cursor>)> {
    let after = after.map(|cursor| cursor.age(order)).transpose()?;
    let Some(ages) = filter.ages(order, after) else { return Ok((Vec::new(), None)) };
    let db = session.db;
    let mut query = QueryBuilder::new("SELECT * FROM ((SELECT ");
    query.push(record::OF_J.as_str()).push(", coalesce(").push_bind(db.now());
    query.push(db.in_schema("::bigint, leasehold.hour()) AS hour, true AS matches FROM ("));
    push_next(&mut query, db, "*", order, ages.clone(), after);
    query.push(format!(" LIMIT {LOOK_AT}) AS j WHERE true"));
    push_filter(&mut query, db, filter)?;
    query.push(format!(" ORDER BY {} LIMIT ", by(order, "j.")));
    // Only one more shows that there is a next page.
    query.push_bind(rows(limit).saturating_add(1)).push(") UNION ALL (SELECT ");
    // The last job that was looked at, if there is another one behind it. It is looked for only if the page is short.
    query.push(record::OF_J.as_str()).push(", 0, false FROM (SELECT l.*, lead(l.id) OVER (ORDER BY ");
    query.push(by(order, "l.")).push(") AS behind FROM (");
    push_next(&mut query, db, "*", order, ages, after);
    query.push(format!(
        " LIMIT 2 OFFSET {}) AS l) AS j WHERE j.behind IS NOT NULL)) AS f LIMIT ",
        LOOK_AT - 1
    ));
    query.push_bind(rows(limit).saturating_add(1));
    let mut found = query.build().persistent(!db.pooler).fetch_all(session.conn()).await?;
    let last = match found.last() {
        Some(row) if !row.try_get::<bool, _>(record::CLAIM + 2)? => found.pop(),
        Some(_) if found.len() > limit => {
            found.truncate(limit);
            None
        }
        _ => return Ok((found, None)),
    };
    let next = last.as_ref().or(found.last()).map(|row| age(row).map(|age| Cursor::after(order, age)));
    Ok((found, next.transpose()?))
}

fn age(row: &PgRow) -> sqlx::Result<Age> {
    Ok((Timestamp::from_millis(row.try_get(6)?), JobId::from_uuid(row.try_get(0)?)))
}

/// Adds a query for the jobs that are to be looked at, as far as their age alone tells.
fn push_next(
    query: &mut QueryBuilder<Postgres>,
    db: &Db,
    columns: &str,
    order: Order,
    ages: std::ops::RangeInclusive<Age>,
    after: Option<Age>,
) {
    let (first, last) = ages.into_inner();
    query.push(format!("SELECT {columns} FROM {} ", db.in_schema("leasehold.jobs")));
    query
        .push("WHERE (enqueued_at, id) >= (")
        .push_bind(first.0.as_millis())
        .push(", ")
        .push_bind(*first.1.as_uuid());
    query
        .push(") AND (enqueued_at, id) <= (")
        .push_bind(last.0.as_millis())
        .push(", ")
        .push_bind(*last.1.as_uuid());
    query.push(")");
    if let Some((at, id)) = after {
        query
            .push(" AND (enqueued_at, id) <> (")
            .push_bind(at.as_millis())
            .push(", ")
            .push_bind(*id.as_uuid())
            .push(")");
    }
    query.push(format!(" ORDER BY {}", by(order, "")));
}

fn by(order: Order, of: &str) -> String {
    match order {
        Order::NewestFirst => format!("{of}enqueued_at DESC, {of}id DESC"),
        Order::OldestFirst => format!("{of}enqueued_at, {of}id"),
    }
}

/// `Filter::matches` in SQL, for jobs that go by the name `j`.
pub(crate) fn push_filter(query: &mut QueryBuilder<Postgres>, db: &Db, filter: &Filter) -> Done<()> {
    let names = |names: &[QueueName]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    if let Some(queues) = &filter.queues {
        query.push(" AND j.queue = ANY (").push_bind(names(queues)).push(")");
    }
    if let Some(kinds) = &filter.kinds {
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
        query.push(" AND j.kind = ANY (").push_bind(kinds).push(")");
    }
    if let Some(reasons) = &filter.reasons {
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        query.push(" AND j.reason = ANY (").push_bind(reasons).push(")");
    }
    if let Some(states) = &filter.states {
        let states: Vec<_> = states.iter().map(|state| record::code(*state)).collect();
        query.push(" AND CASE WHEN j.state > 2 THEN j.state WHEN j.due > coalesce(").push_bind(db.now());
        query.push(db.in_schema("::bigint, leasehold.hour()) THEN 1::smallint ELSE 2::smallint END = ANY ("));
        query.push_bind(states).push(")");
    }
    if let Some(tags) = &filter.tags {
        let tags: Vec<_> = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
        query.push(" AND coalesce(j.tags, '{}') @> ").push_bind(tags);
    }
    if let Some(worker) = filter.worker {
        query.push(" AND j.worker = ").push_bind(*worker.as_uuid());
    }
    if let Some(class) = &filter.error_class {
        query.push(" AND j.error_class = ").push_bind(serde_json::to_string(class)?);
    }
    if let Some(text) = filter.payload_contains.as_ref().filter(|text| !text.is_empty()) {
        query.push(" AND position(").push_bind(text.as_bytes().to_vec()).push(" IN j.payload) > 0");
    }
    if let Some(from) = filter.enqueued_from {
        query.push(" AND j.enqueued_at >= ").push_bind(from.as_millis());
    }
    if let Some(until) = filter.enqueued_until {
        query.push(" AND j.enqueued_at <= ").push_bind(until.as_millis());
    }
    Ok(())
}

/// Of one moment, since it is one statement: how many jobs of a queue went from where to where, and for each queue how
/// many of those that were written as scheduled have become due, and since when the longest waiting one is.
const COUNTS: &str = "WITH t AS MATERIALIZED (
        SELECT queue, was, became, sum(n)::bigint AS n FROM leasehold.tallies
        WHERE $2::text[] IS NULL OR queue = ANY ($2) GROUP BY queue, was, became
    ), hour AS MATERIALIZED (SELECT coalesce($1, leasehold.hour()) AS at)
    SELECT queue, was, became, n, NULL::bigint FROM t
    UNION ALL
    SELECT q.queue, NULL, NULL, (
            SELECT count(*) FROM leasehold.waiting w WHERE w.state = 1 AND w.queue = q.queue AND w.due <= h.at),
        leasehold.oldest_due(h.at, q.queue)
    FROM (SELECT DISTINCT queue FROM t) AS q CROSS JOIN hour AS h";

pub(crate) async fn counts(session: &mut Session<'_>, request: &Counts) -> Done<Vec<QueueCounts>> {
    let db = session.db;
    let queues = request.queues.as_ref();
    let queues = queues.map(|queues| queues.iter().map(|q| q.as_str().to_owned()).collect::<Vec<_>>());
    let found = db.query(COUNTS).bind(db.now()).bind(queues).fetch_all(session.conn()).await?;
    let mut tallies: BTreeMap<QueueName, Tally> = BTreeMap::new();
    for row in &found {
        // A name that cannot be one is nobody's.
        let Ok(queue) = QueueName::new(row.try_get::<&str, _>(0)?) else { continue };
        let tally = tallies.entry(queue).or_default();
        let n: i64 = row.try_get(3)?;
        match (row.try_get::<Option<i16>, _>(1)?, row.try_get::<Option<i16>, _>(2)?) {
            (Some(was), Some(became)) => tally.moved(was, became, n),
            _ => (tally.due, tally.oldest) = (n, row.try_get(4)?),
        }
    }
    Ok(tallies.into_iter().map(|(queue, tally)| tally.counts(queue)).collect())
}

/// What is known of a queue's jobs.
#[derive(Debug, Default)]
struct Tally {
    states: [i64; 7],
    enqueued: i64,
    deleted: i64,
    /// Those that were written as scheduled and have become due.
    due: i64,
    oldest: Option<i64>,
}

impl Tally {
    /// So many jobs went from one state to another; 0 is outside.
    fn moved(&mut self, was: i16, became: i16, n: i64) {
        let mut add = |state: i16, n| {
            if let Some(count) = usize::try_from(state).ok().and_then(|state| self.states.get_mut(state)) {
                *count += n;
            }
        };
        add(was, -n);
        add(became, n);
        self.enqueued += if was == 0 { n } else { 0 };
        self.deleted += if became == 0 { n } else { 0 };
    }

    fn counts(mut self, queue: QueueName) -> QueueCounts {
        self.states[1] -= self.due;
        self.states[2] += self.due;
        let mut counts = QueueCounts::empty(queue);
        let states = State::ALL.into_iter().map(|state| (state, self.states[record::code(state) as usize]));
        counts.states = states.filter(|(_, n)| *n > 0).map(|(state, n)| (state, count(n))).collect();
        (counts.enqueued, counts.deleted) = (count(self.enqueued), count(self.deleted));
        counts.oldest_due = self.oldest.map(Timestamp::from_millis);
        counts
    }
}
