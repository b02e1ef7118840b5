//! Takes jobs in: see `Backend::enqueue`.

use std::collections::BTreeSet;

use leasehold_core::backend::{EnqueueAnswer, Enqueued, Event};
use leasehold_core::{Due, Error, ErrorKind, JobId, NewJob, Timestamp, UniqueScope};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::Done;
use crate::record;
use crate::replace;
use crate::session::{Db, Session, Statement, given, millis};
use crate::watch;

const ENQUEUE: &str = "SELECT n, holder, at FROM leasehold.enqueue(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";

const NOTIFY: &str = "SELECT pg_notify(leasehold.channel(), told) FROM unnest($1) AS told";

/// Whether they can be taken in without a transaction around it: by one statement, since no id comes twice and none
/// replaces another; or one alone, which is replaced or taken in by one statement each time that it is tried. So no lock
/// is held from here.
pub(crate) fn is_plain(jobs: &[NewJob]) -> bool {
    let in_one = || record::rounds(jobs.iter().map(|job| job.id)).len() <= 1;
    jobs.len() == 1 || jobs.iter().all(replace::is_plain) && in_one()
}

pub(crate) async fn enqueue(session: &mut Session<'_>, jobs: &[NewJob]) -> Done<Vec<Enqueued>> {
    let db = session.db;
    let (answers, events) = take_in(db, session.conn(), jobs).await?;
    db.signals.tell(events);
    Ok(answers)
}

/// How often a newcomer is tried again where the key that it came for was freed and taken meanwhile.
const TRIES: usize = 100;

/// Takes jobs in, in runs of those that replace no other, and tells what is to be told of them.
async fn take_in(db: &Db, conn: &mut PgConnection, jobs: &[NewJob]) -> Done<(Vec<Enqueued>, Vec<Event>)> {
    let (mut answers, mut events) = (Vec::with_capacity(jobs.len()), Vec::new());
    for run in jobs.chunk_by(|a, b| replace::is_plain(a) && replace::is_plain(b)) {
        let (told, more) = match run {
            [job] if !replace::is_plain(job) => replace_or_take_in(db, conn, job).await?,
            run => insert_run(db, conn, run).await?,
        };
        answers.extend(told);
        events.extend(more);
    }
    Ok((answers, events))
}

async fn replace_or_take_in(
    db: &Db,
    conn: &mut PgConnection,
    job: &NewJob,
) -> Done<(Vec<Enqueued>, Vec<Event>)> {
    for _ in 0..TRIES {
        if let Some((told, events)) = replace::replace(db, conn, job).await? {
            return Ok((vec![told], events));
        }
        let (told, events) = insert_run(db, conn, std::slice::from_ref(job)).await?;
        if told.iter().all(|told| !matches!(told.answer, EnqueueAnswer::Held)) {
            return Ok((told, events));
        }
    }
    let why = "others keep taking and freeing the unique key; repeat the call";
    Err(Error::new(ErrorKind::Unavailable, why).into())
}

async fn insert_run(db: &Db, conn: &mut PgConnection, jobs: &[NewJob]) -> Done<(Vec<Enqueued>, Vec<Event>)> {
    let (answers, now) = insert(db, conn, jobs, None).await?;
    let created = jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_created());
    let events = created.flat_map(|(job, _)| {
        let (queue, state) = (job.queue.clone(), record::waiting(job.due.by(now), now));
        [Event::Waiting { queue: queue.clone() }, Event::Changed { job: job.id, queue, state }]
    });
    let events = events.collect();
    Ok((answers, events))
}

/// Takes jobs in on the caller's own connection. That they wait is told by the caller's commit.
pub(crate) async fn enqueue_in(db: &Db, conn: &mut PgConnection, jobs: &[NewJob]) -> Done<Vec<Enqueued>> {
    if !jobs.iter().all(replace::is_plain) {
        let (answers, events) = take_in(db, conn, jobs).await?;
        db.query(NOTIFY).bind(watch::signals(events)).execute(conn).await?;
        return Ok(answers);
    }
    let queues: BTreeSet<_> = jobs.iter().map(|job| &job.queue).collect();
    let told = watch::signals(queues.into_iter().map(|queue| Event::Waiting { queue: queue.clone() }));
    Ok(insert(db, conn, jobs, Some(told)).await?.0)
}

pub(crate) async fn insert(
    db: &Db,
    conn: &mut PgConnection,
    jobs: &[NewJob],
    mut told: Option<Vec<String>>,
) -> Done<(Vec<Enqueued>, Timestamp)> {
    let created = |job: &NewJob| Enqueued { job: job.id, answer: EnqueueAnswer::Created };
    let mut answers: Vec<Enqueued> = jobs.iter().map(created).collect();
    let mut now = Timestamp::default();
    for places in record::rounds(jobs.iter().map(|job| job.id)) {
        let some: Vec<_> = places.iter().map(|place| &jobs[*place]).collect();
        let rows = bound(db, &some, told.take())?.fetch_all(&mut *conn).await?;
        for row in &rows {
            now = Timestamp::from_millis(row.try_get(2)?);
            if let Some((place, answer)) = not_taken(row)? {
                let job = answer.map_or(some[place].id, JobId::from_uuid);
                let answer = answer.map_or(EnqueueAnswer::Existing, |_| EnqueueAnswer::Held);
                answers[places[place]] = Enqueued { job, answer };
            }
        }
    }
    Ok((answers, now))
}

/// The place of a job that was not taken in, and who holds its unique key.
fn not_taken(row: &PgRow) -> Done<Option<(usize, Option<Uuid>)>> {
    let n: i64 = row.try_get(0)?;
    let place = usize::try_from(n - 1).ok();
    Ok(place.map(|place| Ok::<_, sqlx::Error>((place, row.try_get(1)?))).transpose()?)
}

fn bound(db: &Db, jobs: &[&NewJob], told: Option<Vec<String>>) -> Done<Statement> {
    fn all<T>(jobs: &[&NewJob], of: impl Fn(&NewJob) -> T) -> Vec<T> {
        jobs.iter().map(|job| of(job)).collect()
    }
    let retention = |of: fn(&leasehold_core::Retention) -> leasehold_core::Keep| {
        all(jobs, |job| record::keep(of(&job.options.retention)))
    };
    let options = jobs.iter().map(|job| record::options_text(&job.options)).collect::<Done<Vec<_>>>()?;
    Ok(db
        .query(ENQUEUE)
        .bind(db.now())
        .bind(all(jobs, |job| *job.id.as_uuid()))
        .bind(all(jobs, |job| job.queue.as_str().to_owned()))
        .bind(all(jobs, |job| job.kind.as_str().to_owned()))
        .bind(all(jobs, |job| job.payload.as_bytes().to_vec()))
        .bind(options)
        .bind(all(jobs, |job| record::rank(job.options.priority)))
        .bind(given(all(jobs, |job| delay(job.due))))
        .bind(given(all(jobs, |job| moment(job.due))))
        .bind(all(jobs, |job| i32::try_from(job.options.max_attempts).unwrap_or(i32::MAX)))
        .bind(given(all(jobs, |job| job.options.lease.map(millis))))
        .bind(given(retention(|retention| retention.succeeded)))
        .bind(given(retention(|retention| retention.failed)))
        .bind(given(retention(|retention| retention.cancelled)))
        .bind(given(all(jobs, tags)))
        .bind(given(all(jobs, |job| Some(job.options.limit.as_ref()?.key.as_str().to_owned()))))
        .bind(given(all(jobs, |job| job.options.limit.as_ref().map(|limit| i64::from(limit.max)))))
        .bind(given(all(jobs, |job| job.options.limit.as_ref().map(|limit| !limit.when_full.is_wait()))))
        .bind(given(all(jobs, |job| Some(job.options.unique.as_ref()?.key.as_str().to_owned()))))
        .bind(given(all(jobs, |job| job.options.unique.as_ref().map(|unique| scope(unique.scope).0))))
        .bind(given(all(jobs, |job| job.options.unique.as_ref().and_then(|unique| scope(unique.scope).1))))
        .bind(told))
}

/// How long after it came in a job is due; none where the moment is told.
pub(crate) fn delay(due: Due) -> Option<i64> {
    match due {
        Due::Now => Some(0),
        Due::In(span) => Some(millis(span)),
        Due::At(_) => None,
    }
}

pub(crate) fn moment(due: Due) -> Option<i64> {
    match due {
        Due::At(moment) => Some(moment.as_millis()),
        _ => None,
    }
}

/// The tags of a job in one text, since a list of lists must have one length. No name has a line's end in it.
fn tags(job: &NewJob) -> Option<String> {
    let tags: Vec<_> = job.options.tags.iter().map(leasehold_core::Tag::as_str).collect();
    (!tags.is_empty()).then(|| tags.join("\n"))
}

/// How a scope is written, and how long it lasts at most.
pub(crate) fn scope(scope: UniqueScope) -> (i16, Option<i64>) {
    match scope {
        UniqueScope::UntilClaimed => (1, None),
        UniqueScope::UntilFinished => (2, None),
        UniqueScope::For(span) => (3, Some(millis(span))),
    }
}
