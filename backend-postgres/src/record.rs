//! Jobs as rows: their columns and states, and how rows become records (clause B3).

use std::sync::LazyLock;

use leasehold_core::backend::SetAside;
use leasehold_core::{
    JobId, JobOptions, JobRecord, Keep, Kind, Payload, QueueName, Reason, State, Timestamp, WorkerId,
};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Done;
use crate::session::{millis, moment};

/// What [`read`] reads, in its order.
const COLUMNS: [&str; 22] = [
    "id",
    "queue",
    "kind",
    "payload",
    "options",
    "due",
    "enqueued_at",
    "rank",
    "state",
    "reason",
    "attempt",
    "crashes",
    "generation",
    "started_at",
    "finished_at",
    "expires_at",
    "worker",
    "lease_until",
    "cancel_requested",
    "progress",
    "result",
    "history",
];
/// Where those are that tell something else where there is no job.
pub(crate) const DUE: usize = 5;
pub(crate) const STARTED_AT: usize = 13;
/// Where the claim under which a job runs comes after them.
pub(crate) const CLAIM: usize = COLUMNS.len();

/// The columns of [`read`] and the claim, of jobs that go by the name `j`.
pub(crate) static OF_J: LazyLock<String> = LazyLock::new(|| {
    let columns = COLUMNS.iter().chain(&["claim"]).map(|column| format!("j.{column}"));
    columns.collect::<Vec<_>>().join(", ")
});
/// The same with neither payload nor result, for whoever looks at neither.
pub(crate) static WITHOUT_BLOBS: LazyLock<String> =
    LazyLock::new(|| OF_J.replace("j.payload", "''::bytea").replace("j.result", "NULL::bytea"));

/// How a state is written.
pub(crate) const fn code(state: State) -> i16 {
    match state {
        State::Scheduled => 1,
        State::Queued => 2,
        State::Running => 3,
        State::Succeeded => 4,
        State::Failed => 5,
        State::Cancelled => 6,
    }
}

/// The state that is written so.
pub(crate) fn state(code: i16) -> Option<State> {
    State::ALL.into_iter().find(|state| self::code(*state) == code)
}

/// The state in which a job that is due then waits.
pub(crate) fn waiting(due: Timestamp, now: Timestamp) -> State {
    if due > now { State::Scheduled } else { State::Queued }
}

/// The priority with its sign turned, so that higher ones come first.
pub(crate) fn rank(priority: i16) -> i16 {
    priority.saturating_neg()
}

/// How long to keep what has ended, as it is written.
pub(crate) fn keep(keep: Keep) -> Option<i64> {
    match keep {
        Keep::For(span) => Some(millis(span)),
        Keep::Forever => None,
    }
}

/// The options as they are written: nothing much for those of most jobs.
pub(crate) fn options_text(options: &JobOptions) -> Done<String> {
    // The priority has a column of its own.
    let mut usual = JobOptions::default();
    usual.priority = options.priority;
    Ok(if *options == usual { "{}".into() } else { serde_json::to_string(options)? })
}

fn options(text: &str) -> serde_json::Result<JobOptions> {
    if text == "{}" { Ok(JobOptions::default()) } else { serde_json::from_str(text) }
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// The job in a row of [`OF_J`], as it is `now`, or what is wrong with it.
pub(crate) fn read(row: &PgRow, now: Timestamp) -> Result<JobRecord, SetAside> {
    try_read(row, now, |text| Ok(options(text)?)).map_err(|error| {
        let job = row.try_get(0).ok().map(JobId::from_uuid);
        SetAside { job, why: format!("the record cannot be read: {error}") }
    })
}

/// The same for whoever changes nothing that options tell: if these cannot be read, they are taken for the usual ones,
/// so that an operator can remove such a job.
pub(crate) fn read_leniently(row: &PgRow, now: Timestamp) -> Option<JobRecord> {
    try_read(row, now, |text| Ok(options(text).unwrap_or_default())).ok()
}

fn try_read(
    row: &PgRow,
    now: Timestamp,
    options: impl FnOnce(&str) -> Result<JobOptions, Unreadable>,
) -> Result<JobRecord, Unreadable> {
    let id = JobId::from_uuid(row.try_get(0)?);
    let (queue, kind) = (QueueName::new(row.try_get::<&str, _>(1)?)?, Kind::new(row.try_get::<&str, _>(2)?)?);
    let payload = Payload::from(row.try_get::<Vec<u8>, _>(3)?);
    let mut options = options(row.try_get(4)?)?;
    options.priority = rank(row.try_get(7)?);
    let (due, enqueued_at) =
        (Timestamp::from_millis(row.try_get(DUE)?), Timestamp::from_millis(row.try_get(6)?));
    let mut job = JobRecord::new(id, queue, kind, payload, options, due, enqueued_at);
    let written: i16 = row.try_get(8)?;
    job.state = state(written).ok_or_else(|| format!("there is no state {written}"))?;
    job.reason = row.try_get::<Option<&str>, _>(9)?.map(str::parse::<Reason>).transpose()?;
    job.attempt = u32::try_from(row.try_get::<i32, _>(10)?)?;
    job.crashes = u32::try_from(row.try_get::<i32, _>(11)?)?;
    job.generation = u32::try_from(row.try_get::<i32, _>(12)?)?;
    job.started_at = moment(row.try_get(STARTED_AT)?);
    job.finished_at = moment(row.try_get(14)?);
    job.expires_at = moment(row.try_get(15)?);
    job.worker = row.try_get::<Option<Uuid>, _>(16)?.map(WorkerId::from_uuid);
    job.lease_until = moment(row.try_get(17)?);
    job.cancel_requested = row.try_get(18)?;
    job.progress = row.try_get::<Option<&str>, _>(19)?.map(serde_json::from_str).transpose()?;
    job.result = row.try_get::<Option<Vec<u8>>, _>(20)?.map(Payload::from);
    let history: Option<Vec<String>> = row.try_get(21)?;
    let failures = history.unwrap_or_default();
    job.history = failures.iter().map(|failure| serde_json::from_str(failure)).collect::<Result<_, _>>()?;
    job.look(now);
    Ok(job)
}

/// Cuts items into rounds in each of which no job comes twice, in order, as one statement changes a row once. Items are
/// told by their places.
pub(crate) fn rounds(jobs: impl Iterator<Item = JobId>) -> Vec<Vec<usize>> {
    let mut times = std::collections::HashMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (place, job) in jobs.enumerate() {
        let time: &mut usize = times.entry(job).or_default();
        if *time == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*time].push(place);
        *time += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_comes_twice_in_a_round() {
        let ids: Vec<JobId> = (0..3).map(|_| JobId::generate()).collect();
        let jobs = [ids[0], ids[1], ids[0], ids[2], ids[0]];
        assert_eq!(rounds(jobs.into_iter()), [vec![0, 1, 3], vec![2], vec![4]]);
        assert_eq!(rounds(std::iter::empty()), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn states_are_written_and_read() {
        for one in State::ALL {
            assert_eq!(state(code(one)), Some(one));
        }
        assert_eq!((state(0), state(7)), (None, None));
    }
}
