//! Records how attempts ended: see `Backend::settle` and `Backend::recover`.

use leasehold_core::QueueName;
use leasehold_core::backend::{Answer, Event, NewFailure, Settlement, Verdict};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::error::Done;
use crate::session::{Db, Session, Statement, given, millis};
use crate::{record, watch};

/// Who settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The holder of the lease.
    Holder,
    /// Whoever found that the lease had run out.
    Recoverer,
}

const SETTLE: &str =
    "SELECT ns, answer, queue, state FROM leasehold.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const TELL: &str = "SELECT pg_notify(leasehold.channel(), told) FROM unnest($1) AS told";

pub(crate) async fn settle(
    session: &mut Session<'_>,
    settlements: &[Settlement],
    by: By,
) -> Done<Vec<Answer>> {
    let db = session.db;
    let (answers, events) = settle_on(db, session.conn(), settlements, by).await?;
    db.signals.tell(events);
    Ok(answers)
}

/// Settles on the caller's own connection. What became of the jobs is told by the caller's commit.
pub(crate) async fn settle_in(
    db: &Db,
    conn: &mut PgConnection,
    settlements: &[Settlement],
) -> Done<Vec<Answer>> {
    let (answers, events) = settle_on(db, conn, settlements, By::Holder).await?;
    db.query(TELL).bind(watch::signals(events)).execute(conn).await?;
    Ok(answers)
}

async fn settle_on(
    db: &Db,
    conn: &mut PgConnection,
    settlements: &[Settlement],
    by: By,
) -> Done<(Vec<Answer>, Vec<Event>)> {
    let (mut answers, mut events) = (vec![Answer::Lost; settlements.len()], Vec::new());
    for mut places in record::rounds(settlements.iter().map(|settlement| settlement.job)) {
        // Always in the order of the ids, so that of two calls about the same jobs none waits for the other.
        places.sort_unstable_by_key(|place| settlements[*place].job);
        // What changed hands the very moment that it was settled is looked at again.
        while !places.is_empty() {
            let rows = bound(db, settlements, by, &places)?.fetch_all(&mut *conn).await?;
            places = read(&rows, settlements, &places, &mut answers, &mut events)?;
        }
    }
    Ok((answers, events))
}

/// The statement that settles those in these places, each of another job.
fn bound(db: &Db, settlements: &[Settlement], by: By, places: &[usize]) -> Done<Statement> {
    let some = || places.iter().map(|place| &settlements[*place]);
    Ok(db
        .query(SETTLE)
        .bind(db.now())
        .bind(by == By::Recoverer)
        .bind(some().map(|s| *s.job.as_uuid()).collect::<Vec<_>>())
        .bind(some().map(|s| *s.token.claim(s.job).as_uuid()).collect::<Vec<_>>())
        .bind(some().map(|s| code(&s.verdict)).collect::<Vec<_>>())
        .bind(given(some().map(|s| reason(&s.verdict)).collect()))
        .bind(given(some().map(|s| delay(&s.verdict)).collect()))
        .bind(given(some().map(|s| result(&s.verdict)).collect()))
        .bind(given(some().map(|s| s.failure.as_ref().map(failure).transpose()).collect::<Done<_>>()?))
        .bind(given(some().map(|s| s.failure.as_ref().map(class).transpose()).collect::<Done<_>>()?))
        .bind(given(some().map(|s| elsewhere(&s.verdict)).collect())))
}

/// Reads the answers, and tells which of the places have none yet.
fn read(
    rows: &[PgRow],
    settlements: &[Settlement],
    places: &[usize],
    answers: &mut [Answer],
    events: &mut Vec<Event>,
) -> Done<Vec<usize>> {
    let mut left: Vec<Option<usize>> = places.iter().copied().map(Some).collect();
    for row in rows {
        let ns = row.try_get::<Vec<i64>, _>(0)?;
        let of = |n: &i64| left.get_mut(usize::try_from(n - 1).ok()?).and_then(Option::take);
        let places: Vec<usize> = ns.iter().filter_map(of).collect();
        let answer = match row.try_get::<i16, _>(1)? {
            1 => Answer::Applied,
            2 => Answer::AlreadyApplied,
            _ => Answer::Lost,
        };
        places.iter().for_each(|place| answers[*place] = answer);
        if answer == Answer::Applied {
            let (queue, state) = (row.try_get::<&str, _>(2)?, record::state(row.try_get(3)?));
            if let (Ok(queue), Some(state)) = (QueueName::new(queue), state) {
                if state.is_waiting() {
                    events.push(Event::Waiting { queue: queue.clone() });
                }
                let changed = |place: usize| Event::Changed {
                    job: settlements[place].job,
                    queue: queue.clone(),
                    state,
                };
                events.extend(places.into_iter().map(changed));
            }
        }
    }
    Ok(left.into_iter().flatten().collect())
}

/// How a verdict is written: those that end a job as the state it ends in.
fn code(verdict: &Verdict) -> i16 {
    match verdict {
        Verdict::Retry { .. } => 1,
        Verdict::Release { .. } => 2,
        Verdict::Succeed { .. } => 4,
        Verdict::Fail { .. } => 5,
        Verdict::Cancel { .. } => 6,
    }
}

fn reason(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Succeed { .. } => None,
        Verdict::Fail { reason }
        | Verdict::Cancel { reason }
        | Verdict::Retry { reason, .. }
        | Verdict::Release { reason, .. } => Some(reason.to_string()),
    }
}

fn delay(verdict: &Verdict) -> Option<i64> {
    match verdict {
        Verdict::Retry { delay, .. } | Verdict::Release { delay, .. } => Some(millis(*delay)),
        _ => None,
    }
}

/// The queue that a job is sent to.
fn elsewhere(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Retry { queue, .. } => queue.as_ref().map(|queue| queue.as_str().to_owned()),
        _ => None,
    }
}

fn result(verdict: &Verdict) -> Option<Vec<u8>> {
    match verdict {
        Verdict::Succeed { result } => result.as_ref().map(|result| result.as_bytes().to_vec()),
        _ => None,
    }
}

/// What a worker tells of a failure, as JSON without its first brace: the server puts in front what it knows itself.
fn failure(failure: &NewFailure) -> Done<String> {
    Ok(serde_json::to_string(failure)?.split_off(1))
}

/// A class as JSON, since it may have any character.
pub(crate) fn class(failure: &NewFailure) -> Done<String> {
    Ok(serde_json::to_string(&failure.class)?)
}
