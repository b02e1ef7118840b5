//! Changes jobs and queues on an operator's behalf, and removes what is over: see `Backend::amend`, `set_queue`,
//! `queues` and `prune`.

use std::collections::{BTreeMap, HashMap};

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Cursor, Event, Filter, Order, Prune, Pruned, QueueRecord, Select,
    SetQueue,
};
use leasehold_core::{JobId, JobRecord, QueueName, State, Timestamp, UniqueKey};
use sqlx::{QueryBuilder, Row};
use uuid::Uuid;

use crate::error::Done;
use crate::inspect;
use crate::record;
use crate::session::{Session, count, millis, moment, rows};

/// A job as it was found, and as it is to be.
struct Change {
    was: i16,
    from: QueueName,
    job: JobRecord,
    /// The unique key that it takes again.
    key: Option<UniqueKey>,
}

/// Runs in a transaction: jobs that are to be changed are locked, looked at, and written.
pub(crate) async fn amend(session: &mut Session<'_>, request: &Amend) -> Done<Amended> {
    let (ids, filter, next) = select(session, &request.select).await?;
    let (mut jobs, now) = load(session, &ids, filter.as_ref(), request.preview).await?;
    let mut keys = holders(session, &jobs, &request.action, now).await?;
    let mut amended = Amended { jobs: Vec::with_capacity(ids.len()), next };
    let mut changed = Vec::new();
    for id in ids {
        let answer = match jobs.remove(&id) {
            Some(mut change) => {
                let answer = act(&mut change, &request.action, &mut keys, now);
                if matches!(answer, AmendAnswer::Applied | AmendAnswer::Requested) {
                    changed.push(change);
                }
                answer
            }
            // One that was found to match, and does so no more.
            None if filter.is_some() => continue,
            None => AmendAnswer::NotFound,
        };
        amended.jobs.push((id, answer));
    }
    if !request.preview && !changed.is_empty() {
        write(session, &changed, &request.action, now).await?;
        tell(session, &changed, &request.action);
    }
    Ok(amended)
}

async fn select(
    session: &mut Session<'_>,
    select: &Select,
) -> Done<(Vec<JobId>, Option<Filter>, Option<Cursor>)> {
    match select {
        Select::Ids(ids) => Ok((ids.clone(), None, None)),
        Select::Matching { filter, as_of, after, limit } => {
            let mut filter = filter.clone();
            filter.enqueued_until = Some(filter.enqueued_until.unwrap_or(*as_of).min(*as_of));
            let order = Order::OldestFirst;
            let (ids, next) = inspect::matching_ids(session, &filter, order, after.as_ref(), *limit).await?;
            Ok((ids, Some(filter), next))
        }
    }
}

/// The jobs of these ids that there are and that match, locked unless nothing is to be changed; and the hour. A record
/// of which not even the state can be read is left out.
async fn load(
    session: &mut Session<'_>,
    ids: &[JobId],
    filter: Option<&Filter>,
    preview: bool,
) -> Done<(HashMap<JobId, Change>, Timestamp)> {
    let db = session.db;
    let uuids: Vec<Uuid> = ids.iter().map(|id| *id.as_uuid()).collect();
    let mut query = QueryBuilder::new("SELECT ");
    query
        .push(record::WITHOUT_BLOBS.as_str())
        .push(db.in_schema(", j.state FROM leasehold.jobs AS j WHERE j.id = ANY ("));
    query.push_bind(uuids).push(")");
    if let Some(filter) = filter {
        inspect::push_filter(&mut query, db, filter)?;
    }
    query.push(" ORDER BY j.id").push(if preview { "" } else { " FOR NO KEY UPDATE" });
    let found = query.build().persistent(!db.pooler).fetch_all(session.conn()).await?;
    // After the locks, which may have been waited for.
    let now = crate::schema::now(session).await?;
    let mut jobs = HashMap::with_capacity(found.len());
    for row in &found {
        let Some(job) = record::read_leniently(row, now) else { continue };
        let change = Change { was: row.try_get(record::CLAIM + 1)?, from: job.queue.clone(), job, key: None };
        jobs.insert(change.job.id, change);
    }
    Ok((jobs, now))
}

/// Who holds the unique keys that these jobs would take again (clause P4).
async fn holders(
    session: &mut Session<'_>,
    jobs: &HashMap<JobId, Change>,
    action: &Action,
    now: Timestamp,
) -> Done<HashMap<UniqueKey, JobId>> {
    let keys = jobs.values().filter_map(|change| change.job.key_taken_again(action));
    let keys: Vec<_> = keys.map(|key| key.as_str().to_owned()).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    const HOLDERS: &str = "SELECT unique_key, id FROM leasehold.jobs
        WHERE unique_key = ANY ($1) AND (unique_until >= $2 OR unique_until IS NULL)";
    let query = session.db.query(HOLDERS).bind(keys).bind(now.as_millis());
    let found = query.fetch_all(session.conn()).await?;
    let holder = |row: &sqlx::postgres::PgRow| {
        Ok((UniqueKey::new(row.try_get::<&str, _>(0)?)?, JobId::from_uuid(row.try_get(1)?)))
    };
    found.iter().map(holder).collect()
}

fn act(
    change: &mut Change,
    action: &Action,
    keys: &mut HashMap<UniqueKey, JobId>,
    now: Timestamp,
) -> AmendAnswer {
    let key = change.job.key_taken_again(action).cloned();
    let mut job = change.job.clone();
    let answer = job.amend(action, now);
    if answer == AmendAnswer::Applied
        && let Some(key) = key
    {
        let holder = *keys.entry(key.clone()).or_insert(job.id);
        if holder != job.id {
            return AmendAnswer::Held(holder);
        }
        change.key = Some(key);
    }
    change.job = job;
    answer
}

async fn write(session: &mut Session<'_>, changes: &[Change], action: &Action, now: Timestamp) -> Done<()> {
    let ids: Vec<Uuid> = changes.iter().map(|change| *change.job.id.as_uuid()).collect();
    if action.deletes() {
        session.db.query("SELECT leasehold.remove($1)").bind(ids).execute(session.conn()).await?;
        return Ok(());
    }
    let keys: Vec<_> =
        changes.iter().filter_map(|change| Some(change.key.as_ref()?.as_str().to_owned())).collect();
    if !keys.is_empty() {
        // Whoever still has one has it beyond its period, or took it this moment: then the server refuses what follows, and
        // all of it is done again.
        let free = session.db.query(
            "UPDATE leasehold.jobs SET unique_key = NULL WHERE unique_key = ANY ($1) AND unique_until < $2",
        );
        free.bind(keys).bind(now.as_millis()).execute(session.conn()).await?;
    }
    // What still runs stands where it stood.
    let running = record::code(State::Running);
    let moves = changes.iter().filter(|change| change.was != running || change.job.state != State::Running);
    let moved: Vec<Uuid> = moves.map(|change| *change.job.id.as_uuid()).collect();
    session.db.query("SELECT leasehold.displace($1)").bind(moved.clone()).execute(session.conn()).await?;
    save(session, ids, changes, action).await?;
    session.db.query("SELECT leasehold.place($1)").bind(moved).execute(session.conn()).await?;
    tally(session, changes).await
}

const SAVE: &str = "UPDATE leasehold.jobs AS j SET
        queue = s.queue, rank = s.rank, state = s.state, reason = s.reason, due = s.due, attempt = s.attempt,
        crashes = s.crashes, generation = s.generation, finished_at = s.finished_at, expires_at = s.expires_at,
        cancel_requested = s.cancel_requested,
        unique_key = CASE WHEN s.state >= 4 AND j.unique_scope <> 3 THEN NULL ELSE coalesce(s.key, j.unique_key) END,
        progress = CASE WHEN $2 THEN NULL ELSE j.progress END, result = CASE WHEN $2 THEN NULL ELSE j.result END
    FROM (
        SELECT u.*, e.place FROM unnest($1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS u (
            id, queue, rank, state, reason, due, attempt, crashes, generation, finished_at, expires_at,
            cancel_requested, key)
        CROSS JOIN LATERAL (SELECT e.ctid FROM leasehold.jobs e WHERE e.id = u.id OFFSET 0) AS e (place)) AS s
    WHERE j.ctid = s.place";

async fn save(session: &mut Session<'_>, ids: Vec<Uuid>, changes: &[Change], action: &Action) -> Done<()> {
    fn all<T>(changes: &[Change], of: impl Fn(&JobRecord) -> T) -> Vec<T> {
        changes.iter().map(|change| of(&change.job)).collect()
    }
    session
        .db
        .query(SAVE)
        .bind(ids)
        .bind(matches!(action, Action::Requeue { .. }))
        .bind(all(changes, |job| job.queue.as_str().to_owned()))
        .bind(all(changes, |job| record::rank(job.options.priority)))
        .bind(all(changes, |job| record::code(job.state)))
        .bind(all(changes, |job| job.reason.map(|reason| reason.to_string())))
        .bind(all(changes, |job| job.due.as_millis()))
        .bind(all(changes, |job| job.attempt.cast_signed()))
        .bind(all(changes, |job| job.crashes.cast_signed()))
        .bind(all(changes, |job| job.generation.cast_signed()))
        .bind(all(changes, |job| job.finished_at.map(Timestamp::as_millis)))
        .bind(all(changes, |job| job.expires_at.map(Timestamp::as_millis)))
        .bind(all(changes, |job| job.cancel_requested))
        .bind(changes.iter().map(|change| Some(change.key.as_ref()?.as_str().to_owned())).collect::<Vec<_>>())
        .execute(session.conn())
        .await?;
    Ok(())
}

/// Counts where jobs went from and to: one that is moved leaves one queue and comes into another.
async fn tally(session: &mut Session<'_>, changes: &[Change]) -> Done<()> {
    let mut moves: BTreeMap<(&str, i16, i16), i64> = BTreeMap::new();
    for change in changes {
        let (from, to) = (change.from.as_str(), change.job.queue.as_str());
        let state = record::code(change.job.state);
        if from != to {
            *moves.entry((from, change.was, 0)).or_default() += 1;
            *moves.entry((to, 0, state)).or_default() += 1;
        } else if change.was != state {
            *moves.entry((from, change.was, state)).or_default() += 1;
        }
    }
    let (queues, (was, (became, n))): (Vec<_>, (Vec<_>, (Vec<_>, Vec<_>))) =
        moves.into_iter().map(|((queue, was, became), n)| (queue.to_owned(), (was, (became, n)))).unzip();
    let insert = session.db.query("INSERT INTO leasehold.tallies SELECT * FROM unnest($1, $2, $3, $4)");
    insert.bind(queues).bind(was).bind(became).bind(n).execute(session.conn()).await?;
    Ok(())
}

fn tell(session: &Session<'_>, changes: &[Change], action: &Action) {
    if action.deletes() {
        return;
    }
    session.db.signals.tell(changes.iter().flat_map(|Change { job, .. }| {
        let (id, queue) = (job.id, job.queue.clone());
        let waits = job.state.is_waiting().then(|| Event::Waiting { queue: queue.clone() });
        let told = if job.cancel_requested {
            Event::CancelRequested { job: id, queue }
        } else {
            Event::Changed { job: id, queue, state: job.state }
        };
        waits.into_iter().chain([told])
    }));
}

pub(crate) async fn set_queue(session: &mut Session<'_>, request: &SetQueue) -> Done<()> {
    let db = session.db;
    db.query("SELECT leasehold.set_queue($1, $2, $3, $4, $5)")
        .bind(db.now())
        .bind(request.queue.as_str().to_owned())
        .bind(serde_json::to_string(&request.settings)?)
        .bind(request.settings.pause.is_some())
        .bind(request.settings.rate.is_some())
        .execute(session.conn())
        .await?;
    let queue = || request.queue.clone();
    db.signals.tell([Event::QueueSet { queue: queue() }, Event::Waiting { queue: queue() }]);
    Ok(())
}

const QUEUES: &str = "SELECT queue, max(settings), max(changed_at) FROM (
        SELECT queue, settings, changed_at FROM leasehold.queues
        UNION ALL SELECT DISTINCT queue, NULL, NULL::bigint FROM leasehold.tallies) AS q
    GROUP BY queue ORDER BY queue";

pub(crate) async fn queues(session: &mut Session<'_>) -> Done<Vec<QueueRecord>> {
    let found = session.db.query(QUEUES).fetch_all(session.conn()).await?;
    let mut queues = Vec::with_capacity(found.len());
    for row in &found {
        let settings: Option<&str> = row.try_get(1)?;
        let settings = settings.map(serde_json::from_str).and_then(Result::ok).unwrap_or_default();
        // A name that cannot be one is nobody's.
        let Ok(queue) = QueueName::new(row.try_get::<&str, _>(0)?) else { continue };
        queues.push(QueueRecord::new(queue, settings, moment(row.try_get(2)?)));
    }
    Ok(queues)
}

pub(crate) async fn prune(session: &mut Session<'_>, request: Prune) -> Done<Pruned> {
    let db = session.db;
    let prune =
        db.query("SELECT jobs, workers, registers, more FROM leasehold.prune($1, $2, $3)").bind(db.now());
    let prune = prune.bind(rows(request.limit)).bind(millis(request.workers_after));
    let row = prune.fetch_one(session.conn()).await?;
    Ok(Pruned {
        jobs: count(row.try_get(0)?),
        workers: count(row.try_get(1)?),
        registers: count(row.try_get(2)?),
        more: row.try_get(3)?,
    })
}
