//! Jobs as rows: their columns, states and JSON, and how rows become records (clause B3).

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::ops::Range;

use leasehold_core::authoring::stored;
use leasehold_core::backend::SetAside;
use leasehold_core::limits::HISTORY;
use leasehold_core::{
    Failure, JobId, JobRecord, Keep, Kind, LeaseToken, Payload, QueueName, Reason, State, Timestamp, WorkerId,
};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use crate::error::Done;
use crate::writer::Session;

macro_rules! new_columns {
    () => {
        "seq, id, leasehold_jobs.lane, options, due, attempt, crashes, generation, enqueued_at, progress, history, \
         (SELECT payload FROM leasehold_payloads AS p WHERE p.seq = leasehold_jobs.seq) AS payload"
    };
}

/// What [`read_new`] reads, in its order, from `leasehold_jobs`: what a claim cannot know otherwise.
pub(crate) const NEW_COLUMNS: &str = new_columns!();

/// Selects what [`read`] reads; wants a `WHERE`.
pub(crate) const SELECT: &str = concat!(
    "SELECT ",
    new_columns!(),
    ", queue, kind, priority, state, reason, started_at, finished_at, expires_at, worker, lease_until, \
     cancel_requested, \
     CASE state WHEN 4 THEN (SELECT result FROM leasehold_results AS r WHERE r.seq = leasehold_jobs.seq) END, claim \
     FROM leasehold_jobs LEFT JOIN leasehold_lanes AS lanes ON lanes.lane = leasehold_jobs.lane"
);

/// The jobs of one queue, priority and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub(crate) queue: QueueName,
    pub(crate) priority: i16,
    pub(crate) kind: Kind,
}

impl Lane {
    pub(crate) fn new(queue: &str, priority: i16, kind: &str) -> leasehold_core::Result<Self> {
        Ok(Self { queue: QueueName::new(queue)?, priority, kind: Kind::new(kind)? })
    }
}

/// The rows of one statement at most. Statements have a power of two of rows, so that few are prepared.
const ROWS: usize = 128;

/// How a state is written.
pub(crate) const fn code(state: State) -> i64 {
    match state {
        State::Scheduled => 1,
        State::Queued => 2,
        State::Running => 3,
        State::Succeeded => 4,
        State::Failed => 5,
        State::Cancelled => 6,
    }
}

/// What a written state is at `now`: a scheduled job becomes queued with no write when its time comes.
pub(crate) fn state(code: i64, due: i64, now: Timestamp) -> Option<State> {
    Some(match code {
        1 if due > now.as_millis() => State::Scheduled,
        1 | 2 => State::Queued,
        3 => State::Running,
        4 => State::Succeeded,
        5 => State::Failed,
        6 => State::Cancelled,
        _ => return None,
    })
}

/// Ids as a list that SQL reads by `SELECT unhex(value) FROM json_each(?)`.
pub(crate) fn id_list<'a>(ids: impl IntoIterator<Item = &'a JobId>) -> String {
    let mut list = String::from("[");
    for id in ids {
        let comma = if list.len() > 1 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(list, "{comma}\"{}\"", id.as_uuid().simple());
    }
    list + "]"
}

/// Leases as one blob of jobs and their claims, and a list of where in it each begins: to bind them one by one would
/// cost more than what is done with them.
pub(crate) fn leases(leases: impl ExactSizeIterator<Item = (JobId, LeaseToken)>) -> (String, Vec<u8>) {
    let starts = (0..leases.len()).map(|n| (32 * n + 1).to_string()).collect::<Vec<_>>().join(",");
    let pair = |(job, token): (JobId, LeaseToken)| [*job.as_uuid(), *token.claim(job).as_uuid()];
    let bytes = leases.flat_map(pair).flat_map(uuid::Uuid::into_bytes).collect();
    (format!("[{starts}]"), bytes)
}

/// Strings or numbers as a list that SQL reads by `SELECT value FROM json_each(?)`.
pub(crate) fn list<T: serde::Serialize>(items: &[T]) -> Done<String> {
    Ok(serde_json::to_string(items)?)
}

/// Cuts `0..n` into ranges of powers of two, largest first.
pub(crate) fn chunks(n: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = n - start;
        let size = if left >= ROWS { ROWS } else { 1 << left.checked_ilog2()? };
        start += size;
        Some(start - size..start)
    })
}

/// `(?, ?), (?, ?)`: the places of so many rows of so many values.
pub(crate) fn places(rows: usize, values: usize) -> String {
    let row = format!("({})", vec!["?"; values].join(", "));
    vec![row; rows].join(", ")
}

/// The job in a row of [`SELECT`], or what is wrong with it.
pub(crate) fn read(row: &SqliteRow, now: Timestamp) -> Result<JobRecord, SetAside> {
    let lane = |row: &SqliteRow| -> Result<Lane, Unreadable> {
        let (queue, kind) = (row.try_get::<&str, _>(12)?, row.try_get::<&str, _>(13)?);
        Ok(Lane { queue: QueueName::new(queue)?, kind: Kind::new(kind)?, priority: row.try_get(14)? })
    };
    let job =
        lane(row).and_then(|lane| try_read_new(row, &lane)).and_then(|job| try_read_rest(row, job, now));
    job.map_err(|error| set_aside(row, &error))
}

/// The job in a row of [`NEW_COLUMNS`], as if it was just taken in.
pub(crate) fn read_new(row: &SqliteRow, lane: &Lane) -> Result<JobRecord, SetAside> {
    try_read_new(row, lane).map_err(|error| set_aside(row, &error))
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn set_aside(row: &SqliteRow, error: &Unreadable) -> SetAside {
    SetAside::new(row.try_get(1).ok().map(JobId::from_uuid), error)
}

fn try_read_new(row: &SqliteRow, lane: &Lane) -> Result<JobRecord, Unreadable> {
    let id = JobId::from_uuid(row.try_get(1)?);
    let mut options = stored::options(row.try_get(3)?)?;
    options.priority = lane.priority;
    let (due, enqueued_at) =
        (Timestamp::from_millis(row.try_get(4)?), Timestamp::from_millis(row.try_get(8)?));
    let payload = Payload::from(row.try_get::<Vec<u8>, _>(11)?);
    let (queue, kind) = (lane.queue.clone(), lane.kind.clone());
    let mut job = JobRecord::new(id, queue, kind, payload, options, due, enqueued_at);
    job.attempt = row.try_get(5)?;
    job.crashes = row.try_get(6)?;
    job.generation = row.try_get(7)?;
    job.progress = json(row, 9)?;
    job.history = json(row, 10)?.unwrap_or_default();
    Ok(job)
}

fn try_read_rest(row: &SqliteRow, mut job: JobRecord, now: Timestamp) -> Result<JobRecord, Unreadable> {
    let written: i64 = row.try_get(15)?;
    job.state =
        state(written, job.due.as_millis(), now).ok_or_else(|| format!("there is no state {written}"))?;
    job.reason = row.try_get::<Option<&str>, _>(16)?.map(str::parse).transpose()?;
    job.started_at = moment(row, 17)?;
    job.finished_at = moment(row, 18)?;
    job.expires_at = moment(row, 19)?;
    job.worker = row.try_get::<Option<Uuid>, _>(20)?.map(WorkerId::from_uuid);
    job.lease_until = moment(row, 21)?;
    job.cancel_requested = row.try_get(22)?;
    job.result = row.try_get::<Option<Vec<u8>>, _>(23)?.map(Payload::from);
    Ok(job)
}

fn moment(row: &SqliteRow, column: usize) -> sqlx::Result<Option<Timestamp>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: usize) -> Result<Option<T>, Unreadable> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.map(serde_json::from_str).transpose()?)
}

/// Declares [`Brief`] from its columns, so that struct, reading and writing cannot disagree.
macro_rules! brief {
    (kept { $($kept:ident: $kept_type:ty,)* } changed { $($changed:ident: $changed_type:ty,)* }) => {
        /// What of a job a transition looks at and changes: read by [`load`], written back by [`save`].
        #[derive(Debug, Clone)]
        pub(crate) struct Brief {
            $(pub(crate) $kept: $kept_type,)*
            $(pub(crate) $changed: $changed_type,)*
        }

        impl Brief {
            const CHANGED: &[&str] = &[$(stringify!($changed)),*];
            const COLUMNS: &[&str] = &[$(stringify!($kept),)* $(stringify!($changed)),*];

            fn read(row: &SqliteRow) -> sqlx::Result<Self> {
                let mut column = 0..;
                let mut next = || column.next().unwrap_or_default();
                Ok(Self { $($kept: row.try_get(next())?,)* $($changed: row.try_get(next())?,)* })
            }

            fn bind<'q>(&self, query: Statement<'q>) -> Statement<'q> {
                query.bind(self.seq)$(.bind(self.$changed.clone()))*
            }
        }
    };
}

/// A statement that values are being bound to.
pub(crate) type Statement<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

brief! {
    kept {
        seq: i64,
        id: Uuid,
        worker: Option<Uuid>,
        max_attempts: i64,
        enqueued_at: i64,
        unique_scope: Option<i64>,
        options: String,
        queue: String,
        kind: String,
        priority: i16,
    }
    changed {
        lane: i64,
        state: i64,
        reason: Option<String>,
        due: i64,
        attempt: i64,
        crashes: i64,
        generation: i64,
        finished_at: Option<i64>,
        expires_at: Option<i64>,
        claim: Option<Uuid>,
        lease_until: Option<i64>,
        cancel_requested: bool,
        unique_key: Option<String>,
        progress: Option<String>,
        history: Option<String>,
        error_class: Option<String>,
        settled_claim: Option<Uuid>,
        settled_as: Option<String>,
    }
}

/// The jobs of these ids that there are. A record of which not even this much can be read is left out.
pub(crate) async fn load(
    conn: &mut SqliteConnection,
    ids: impl IntoIterator<Item = &JobId>,
) -> Done<HashMap<JobId, Brief>> {
    let ids = id_list(ids);
    if ids == "[]" {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT {} FROM leasehold_jobs JOIN leasehold_lanes USING (lane)
         WHERE id IN (SELECT unhex(value) FROM json_each(?))",
        Brief::COLUMNS.join(", ")
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(ids).fetch_all(conn).await?;
    let jobs = rows.iter().filter_map(|row| Brief::read(row).ok());
    Ok(jobs.map(|job| (JobId::from_uuid(job.id), job)).collect())
}

/// Writes changed jobs back.
pub(crate) async fn save(conn: &mut SqliteConnection, jobs: &[&Brief]) -> Done<()> {
    let set: Vec<_> =
        Brief::CHANGED.iter().zip(2..).map(|(name, column)| format!("{name} = v.column{column}")).collect();
    for chunk in chunks(jobs.len()) {
        let sql = format!(
            "UPDATE leasehold_jobs SET {} FROM (VALUES {}) AS v WHERE seq = v.column1",
            set.join(", "),
            places(chunk.len(), 1 + Brief::CHANGED.len())
        );
        let query = jobs[chunk].iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, job| job.bind(query));
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

impl Brief {
    pub(crate) fn state_at(&self, now: Timestamp) -> State {
        // A state that does not exist cannot be changed either, like one that has ended.
        state(self.state, self.due, now).unwrap_or(State::Failed)
    }

    /// Lets it wait until it is due.
    pub(crate) fn wait(&mut self, due: Timestamp, reason: impl Into<Option<Reason>>, now: Timestamp) {
        self.leave(State::waiting(due, now), reason.into());
        self.due = due.as_millis();
    }

    /// Whether it waits and is parked (clause P7).
    pub(crate) fn is_parked(&self, now: Timestamp) -> bool {
        self.state_at(now).is_waiting() && self.due == Timestamp::MAX.as_millis()
    }

    /// Whether it ended at this moment or before.
    pub(crate) fn ended_by(&self, moment: Timestamp) -> bool {
        self.state > 3 && self.finished_at.is_some_and(|at| at <= moment.as_millis())
    }

    /// Ends it, and sets when it may be removed (clauses S1, F5).
    pub(crate) fn end(&mut self, state: State, reason: Option<Reason>, now: Timestamp) {
        self.leave(state, reason);
        let keep = stored::options(&self.options).unwrap_or_default().retention.of(state);
        let keep = if reason == Some(Reason::Moved) { Keep::Forever } else { keep };
        self.finished_at = Some(now.as_millis());
        self.expires_at = keep.until(now).map(Timestamp::as_millis);
        if self.unique_scope != Some(UNIQUE_FOR) {
            self.unique_key = None;
        }
    }

    fn leave(&mut self, state: State, reason: Option<Reason>) {
        self.state = code(state);
        self.reason = reason.map(|reason| reason.to_string());
        (self.claim, self.lease_until, self.cancel_requested) = (None, None, false);
    }

    /// Adds to the history, which keeps the first failure and the latest (clause S4).
    pub(crate) fn remember(&mut self, failure: Failure) -> Done<()> {
        let known = self.history.as_deref().map(serde_json::from_str::<Vec<Failure>>);
        let mut history = known.and_then(Result::ok).unwrap_or_default();
        if history.len() >= HISTORY {
            history.remove(1);
        }
        self.error_class = Some(failure.class.clone());
        history.push(failure);
        self.history = Some(serde_json::to_string(&history)?);
        Ok(())
    }

    /// Tells watchers of its new state.
    pub(crate) fn tell(&self, session: &mut Session) {
        session.tell_state(JobId::from_uuid(self.id), &self.queue, self.state_at(session.now));
    }
}

/// The numbers of these lanes, which are made if they are not there.
pub(crate) async fn lanes(conn: &mut SqliteConnection, lanes: &HashSet<Lane>) -> Done<HashMap<Lane, i64>> {
    let lanes: Vec<_> = lanes.iter().collect();
    let mut numbers = HashMap::with_capacity(lanes.len());
    for chunk in chunks(lanes.len()) {
        // What is there is written again as it is, so that it is returned, too.
        let sql = format!(
            "INSERT INTO leasehold_lanes (queue, priority, kind) VALUES {}
             ON CONFLICT DO UPDATE SET kind = kind RETURNING queue, priority, kind, lane",
            places(chunk.len(), 3)
        );
        let mut query = sqlx::query_as(AssertSqlSafe(sql));
        for lane in &lanes[chunk] {
            query = query.bind(lane.queue.as_str()).bind(lane.priority).bind(lane.kind.as_str());
        }
        let rows: Vec<(String, i16, String, i64)> = query.fetch_all(&mut *conn).await?;
        for (queue, priority, kind, number) in rows {
            numbers.insert(Lane::new(&queue, priority, &kind)?, number);
        }
    }
    Ok(numbers)
}

/// Finds the lanes of jobs that have another queue or priority now.
pub(crate) async fn change_lanes(conn: &mut SqliteConnection, jobs: &mut HashMap<JobId, Brief>) -> Done<()> {
    let lane = |job: &Brief| Lane::new(&job.queue, job.priority, &job.kind).ok();
    let lanes = lanes(conn, &jobs.values().filter_map(lane).collect()).await?;
    for job in jobs.values_mut() {
        job.lane = lane(job).and_then(|lane| lanes.get(&lane).copied()).unwrap_or(job.lane);
    }
    Ok(())
}

/// Inserts payloads or results of jobs, by their `seq`, with `sql` as far as its rows.
pub(crate) async fn insert_blobs(
    conn: &mut SqliteConnection,
    sql: &str,
    blobs: &[(i64, &Payload)],
) -> Done<()> {
    for chunk in chunks(blobs.len()) {
        let sql = format!("{sql} {}", places(chunk.len(), 2));
        let query = sqlx::query(AssertSqlSafe(sql));
        let bind = |query: Statement<'static>, (seq, blob): &(i64, &Payload)| {
            query.bind(*seq).bind(blob.as_bytes().to_vec())
        };
        blobs[chunk].iter().fold(query, bind).execute(&mut *conn).await?;
    }
    Ok(())
}

/// How the scopes of unique keys are written (clause P4).
pub(crate) const UNIQUE_UNTIL_CLAIMED: i64 = 1;
pub(crate) const UNIQUE_UNTIL_FINISHED: i64 = 2;
pub(crate) const UNIQUE_FOR: i64 = 3;
